import sys
from pathlib import Path

# The made-up evidence of the figures' tests serves the page's tests too.
sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))
