"""Dyck-(k, m): well-nested brackets of k types, at most m deep, in distribution and out of it."""

from heldout.tasks.dyck.sentences import Sentences, Vocabulary, levels
from heldout.tasks.dyck.splits import Dyck, DyckSettings
from heldout.tasks.dyck.walks import SHORTEST, Walks

__all__ = ["SHORTEST", "Dyck", "DyckSettings", "Sentences", "Vocabulary", "Walks", "levels"]
