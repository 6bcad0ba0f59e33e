"""Which files are code: extension -> language, and the Pygments lexer that knows it."""

from __future__ import annotations

EXTENSIONS = {
    "python": (".py",),
    "c_cpp": (".h", ".hh", ".hpp", ".cuh", ".c", ".cc", ".cpp", ".cxx", ".cu"),
    "cython": (".pyx", ".pxd", ".pxi"),
    "javascript": (".js", ".mjs", ".jsx"),
    "typescript": (".ts", ".tsx"),
    "fortran": (".f", ".for", ".f90", ".f95", ".f03"),
    "cmake": (".cmake",),
    "rust": (".rs",),
    "go": (".go",),
    "java": (".java",),
    "ruby": (".rb",),
    "php": (".php",),
    "julia": (".jl",),
    "lua": (".lua",),
    "shell": (".sh",),
}
LEXERS = {"c_cpp": "cpp", "shell": "bash"}  # where Pygments calls it otherwise
NAMES = {"c_cpp": "C and C++", "cmake": "CMake", "javascript": "JavaScript", "typescript": "TypeScript", "php": "PHP"}

_BY_EXTENSION = {extension: language for language, found in EXTENSIONS.items() for extension in found}


def language_of(filename: str) -> str | None:
    """The language of a file by its extension (upper or lower case); None where it is not code."""
    dot = filename.rfind(".")
    return _BY_EXTENSION.get(filename[dot:].lower()) if dot > 0 else None


def shown_name(language: str) -> str:
    """How a reader calls a language."""
    return NAMES.get(language, language.capitalize())
