"""What a command that ended has written, as far as a disturbed one must write the same."""

from pathlib import Path

from advfeat.core import store


def content(folder: Path) -> dict[str, bytes | int]:
    """What must be equal: arrays of every .npz, tables, pictures, the length of records."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix in (".png", ".parquet"):
            found[name] = path.read_bytes()
        elif path.suffix == ".npz":
            held = store.load_npz(path).items()
            found |= {f"{name}/{key}": a.tobytes() for key, a in held if key not in ("head", "digest")}
        elif path.name == "records.bin":
            found[name] = path.stat().st_size
    return found
