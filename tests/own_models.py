"""The models and the attack of docs/extending.md, as they stand there."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"


def code() -> dict:
    """The names that the page's blocks define, run in order."""
    names = {"__name__": "extending"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        with redirect_stdout(StringIO()):
            exec(compile(block, str(PAGE), "exec"), names)
    return names


_names = code()
SoftmaxRegression, OneHiddenLayer, RandomCorners = (
    _names[name] for name in ("SoftmaxRegression", "OneHiddenLayer", "RandomCorners")
)
