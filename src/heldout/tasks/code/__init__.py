"""Real source code, one character at a time.

`settings.CodeSettings` says what text, `splits.code` reads it and gives `windows.Windows` by split, `breakdown` labels each
target character. Nothing is imported here: listing what there is loads no torch.
"""
