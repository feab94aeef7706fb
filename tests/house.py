"""The rooms of the library, and which of its files import which: what test_house.py judges and docs/rooms.py draws."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"advfeat": ROOT / "advfeat", "advfeat.kernels": ROOT / "kernels", "advfeat.validation": ROOT / "validation"}
#: From the ground up; rooms of one line do not import each other.
FLOORS = [
    {"kernels"},
    {"core"},
    {"attacks", "theory"},
    {"patches", "images"},
    {"training", "robustness"},
    {"experiments"},
    {"reporting"},
    {"sweeps", "validation", "explorer", "bridges"},
    {"cli"},
    {"public"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def modules(folders=None) -> dict[str, Path]:
    """Dotted name -> file of every module of the library."""
    found = {}
    for package, folder in (folders or FOLDERS).items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


def room(name: str) -> str:
    """The room of a module; the package's own `__init__`, which gathers what is public, stands above all."""
    parts = name.split(".")[1:]
    if not parts:
        return "public"
    return "cli" if parts[0] in ("cli", "__main__") else parts[0]


def imports(name: str, path: Path, known) -> set[str]:
    """The modules that a file names in import statements, wherever in the file they stand."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                found |= {whole} if whole in known else {source} & set(known)
    return found - {name}


def graph(folders=None) -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    known = modules(folders)
    return {name: imports(name, path, known) for name, path in known.items()}
