"""Errors that reach a user.

    EdgewiseError                exit code 1
    ├── InvalidInput             2   what was given is wrong: path, shape, dtype, option, file
    │   ├── InvalidModel         2   the model can't be read, traced, exported or run
    │   ├── InvalidData          2   the data can't be read, or a split is empty
    │   ├── InvalidPackage       2   truncated, altered, newer, or hostile
    │   │   └── NotTrusted       2   whole, but not signed by a key that is trusted, or older than it may be
    │   └── MissingExtra         2   an optional part isn't installed; says the pip line
    ├── BudgetMissed             3   `fit` ended with a model, but a limit was missed
    └── MeasurementFailed        4   a measuring process died, hung, or never settled

A message says what was given, what was expected, and what to do next, on one or two lines.
"""

from __future__ import annotations


class EdgewiseError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InvalidInput(EdgewiseError, ValueError):
    exit_code = 2


class InvalidModel(InvalidInput):
    pass


class InvalidData(InvalidInput):
    pass


class InvalidPackage(InvalidInput):
    pass


class NotTrusted(InvalidPackage):
    pass


class MissingExtra(InvalidInput, ImportError):
    pass


class BudgetMissed(EdgewiseError):
    exit_code = 3


class MeasurementFailed(EdgewiseError):
    exit_code = 4
