"""Steps that are computed once, kept in a store, and run by an engine."""

from heldout.runs.directory import Run
from heldout.runs.engine import ENGINES
from heldout.runs.run import execute
from heldout.runs.steps import Step, StepContext, check_steps, step_keys
from heldout.runs.store import Store
from heldout.runs.worker import StepFailed

__all__ = ["ENGINES", "Run", "Step", "StepContext", "StepFailed", "Store", "check_steps", "execute", "step_keys"]
