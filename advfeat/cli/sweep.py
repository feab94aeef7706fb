"""Every point of a sweep, on this machine or a cluster; the same command continues it and draws its pictures."""

from pathlib import Path

from . import common, examples

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} runs [{elapsed}{postfix}]"


def add_arguments(parser):
    parser.add_argument("spec", metavar="SPEC.toml", help="what to sweep, or the name of an example")
    parser.add_argument("--out", metavar="DIR", help="folder (default advfeat-runs/sweep-<spec>)")
    parser.add_argument("--memory", default="2GB", help="peak of all local processes together (default 2GB)")
    parser.add_argument("--jobs", type=int, metavar="N", help="workers (default: the usable cores)")
    where = "loky, dask=tcp://HOST:PORT, or another joblib backend (default loky)"
    parser.add_argument("--scheduler", default="loky", metavar="NAME", help=where)
    most = {"type": int, "default": 256, "metavar": "N", "help": "runs in one batch at most (default 256)"}
    parser.add_argument("--largest-batch", **most)
    parser.add_argument("--yes", action="store_true", help="also for more than a million runs")
    common.add_output(parser, table=False)


def run(args) -> int:
    from ..sweeps import SweepFailed, SweepInterrupted, SweepSpec
    from ..sweeps import sweep as run_sweep

    file = examples.file_of(args.spec)
    spec = SweepSpec.build(file)
    out = Path(args.out or f"advfeat-runs/sweep-{Path(args.spec).stem}")
    first = []
    with common.bar(args, total=spec.n_runs, unit="run", bar_format=BAR) as bar:

        def started(plan, lines):
            with bar.external_write_mode():
                common.say(args, "\n".join(lines))
            bar.reset(plan.n_runs)

        def progress(state):
            bar.n = state.done
            bar.set_postfix_str(f"about {_duration(state.left)} left", refresh=True)
            if not first and state.batches_left:
                first.append(state)
                with bar.external_write_mode():
                    line = f"  first batch after {state.seconds:.1f} s, about {_duration(state.left)} left"
                    common.say(args, line)

        options = {"memory": args.memory, "jobs": args.jobs, "scheduler": args.scheduler, "yes": args.yes}
        options |= {"largest_batch": args.largest_batch}
        try:
            table = run_sweep(file, out, started=started, progress=progress, **options)
        except SweepInterrupted as stop:
            kept = f"stopped; {stop.done:,} of {stop.total:,} runs are kept"
            raise KeyboardInterrupt(f"{kept}, the same command continues from {out}") from None
        except SweepFailed as error:
            raise common.Failed(error) from None
    common.say(args, f"\nResults: {table}")
    if spec.plots:
        from ..sweeps.gallery import plot as draw

        with common.continued(out):
            draw(out, None)
        common.say(args, f"Pictures: {out / 'index.html'}")
    return 0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
