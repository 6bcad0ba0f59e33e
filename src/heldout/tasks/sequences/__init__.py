"""Features of token sequences, answered one after another in a chosen order."""

from heldout.tasks.sequences.library import KINDS, SequenceFeature, sequence_feature
from heldout.tasks.sequences.settings import SequencesSettings, latin_square
from heldout.tasks.sequences.task import START, Sequences

__all__ = ["KINDS", "START", "SequenceFeature", "Sequences", "SequencesSettings", "latin_square", "sequence_feature"]
