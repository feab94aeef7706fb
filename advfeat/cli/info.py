"""Engines, devices, versions, threads; with --plan, what the engine would do for a configuration."""


from ..core import store
from ..core.distribute import usable_cores
from . import common


def add_arguments(parser):
    common.add_config(parser)
    parser.add_argument("--plan", action="store_true", help="what the engine would do for this configuration")
    parser.add_argument("--network", metavar="FILE", help="a network of layers: which kernel each of its layers has")
    parser.add_argument("--batch", type=int, metavar="N", help="its images in a pass (default 128)")
    common.add_output(parser)


def run(args) -> int:
    from llvmlite.binding import get_host_cpu_name

    from ..kernels import target
    from ..kernels.cpu import engine as cpu_engine
    from ..kernels.cpu import kernels as cpu_kernels
    from ..kernels.gpu import device as gpu_device

    if not args.plan and (given := common.options_given(args)):
        raise ValueError(f"{', '.join(given)}: only with --plan, which is what the engine would do for a configuration")
    if args.batch is not None and args.network is None:
        raise ValueError("--batch: only with --network, whose images it counts")
    missing = gpu_device.missing()
    document = {
        "numba": {
            "vector_bits": target.VECTOR_BITS, "threads": cpu_engine.get_num_threads(),
            "fused_multiply_add": bool(target.FUSED), "switch": target.SWITCH, "narrower": target.WITHOUT,
        },
        "cupy": {"missing": missing, "device": None if missing else gpu_device.connect().name},
        "cpu": get_host_cpu_name(),
        "usable_cores": usable_cores(),
        "compiled_kernels": getattr(cpu_kernels.train.stats, "cache_path", None) or None,
        "environment": store.environment(),
    }  # fmt: skip
    fused = "with" if target.FUSED else "without"
    rows = [
        ("numba engine", f"{target.VECTOR_BITS}-bit vectors, {document['numba']['threads']} threads"),
        ("vectors", f"{fused} fused multiply-add; {target.SWITCH} = {', '.join(target.WITHOUT)} for narrower ones"),
        ("numpy engine", "the reference"),
        ("cupy engine", missing or document["cupy"]["device"]),
        ("cpu", document["cpu"]),
        ("usable cores", document["usable_cores"]),
        ("compiled kernels", document["compiled_kernels"] or "not kept: no folder for them can be written"),
        *document["environment"].items(),
    ]
    parts = [(("part", "state"), rows)]
    if args.plan:
        from ..experiments.figure3 import plan_recursions

        config, weights = common.config_of(args)
        net, data = config.network(weights), config.data("train")
        plan = net.engine.plan(net.weights, net.prepare(*net.check(data.X, data.y)))
        plan += plan_recursions(config, weights)
        document["plan"] = {"seeds": config.n_seeds, "backend": config.backend, "choices": dict(plan)}
        parts.append(f"Plan for {config.n_seeds} seeds:\n" + common.table(("choice", config.backend), plan))
    if args.network is not None:
        from ..images.exchange import load

        net = load(args.network)
        batch = 128 if args.batch is None else args.batch
        rows, size = net.plan(batch), net.memory(batch)
        document["network"] = {"images": batch, "bytes": size, "kernels": dict(rows)}
        about = f"{net!r}, {batch} images: some {size / 2**20:.3g} MiB for a step of training"
        parts.append(about + "\n" + common.table(("layer", "kernel"), rows))
    common.show(args, document, *parts)
    return 0
