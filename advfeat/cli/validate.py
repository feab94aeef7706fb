"""The ledger: every statement of the paper, measured and judged; exit status 1 if a verdict is not the recorded."""

from ..core import store
from . import common


def add_arguments(parser):
    parser.add_argument("--quick", action="store_true", help="fewer seeds for trained networks: three minutes")
    several = {"nargs": "+", "action": "extend"}
    parser.add_argument("--only", metavar="LABEL", **several, help="these entries, as D.4 or 4.3.1")
    parser.add_argument("--entries", metavar="FILE.py", **several, help="statements of your own (docs/statements.md)")
    parser.add_argument("--out", metavar="DIR", default="advfeat-ledger", help="folder (default advfeat-ledger)")
    common.add_output(parser)


def run(args) -> int:
    from ..validation import run as ledger
    from ..validation.ledger import count

    entries = ledger.known(args.entries)
    ledger.choose(args.only, entries)  # refuses an unknown label before there is a folder
    out = store.make_folder(args.out)
    with common.Bar(args) as bar:
        results = ledger.run(args.only, args.quick, bar, entries)
    page, changed = ledger.write(results, out, args.quick), ledger.differences(results, args.quick)
    rows = [(r.entry.label, r.verdict, r.margin, r.entry.title) for r in results]
    head = ("label", "verdict", "margin", "statement")
    document = {"entries": [dict(zip(head, row)) for row in rows], "counts": count(results), "page": page}
    document["changed"] = changed
    parts = [", ".join(f"{n} {verdict}" for verdict, n in count(results).items()) + f"\nLedger: {page}"]
    if changed:
        parts.append("\n  ".join(["Not the verdicts on record (recorded -> found):", *changed]))
    cells = [(label, verdict, f"{margin:.3g}", title) for label, verdict, margin, title in rows]
    common.show(args, document, (head, cells), *parts)
    return 1 if changed else 0
