"""Command lines that cannot be: one line on stderr that names option, value and rule, status 2, and nothing written."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest
from refusals import LONGEST, RULE

from advfeat.cli import main
from advfeat.core.config import parse_value
from advfeat.experiments.configuration import Figure3Config
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.representatives_configuration import RepresentativesConfig

PARSED = re.compile(r"invalid|expected|required|unrecognized|not allowed|ambiguous")  # argparse's own words for rules
RULES = re.compile(RULE.pattern + r"|\b(not|no|give|is a folder|with|did you mean|is there|holds|was)\b")  # and files'


def refused(arguments, capsys, name, *values):
    """What is wrong with how a command line is refused."""
    status, (out, err) = main(arguments), capsys.readouterr()
    last = err.strip().split("\n")[-1]
    out = "" if out.startswith("Memory: ") and out.count("\n") == 1 else out  # what it would take, said before
    found = [f"status {status}: {err or out:.300}"] * (status != 2) + [f"stdout: {out:.200}"] * (out != "")
    found += ["traceback"] * ("Traceback" in err) + ["several lines"] * ("\n" in err.strip() and "usage:" not in err)
    said = last.split(": ")
    found += [f"doubled: {last}"] * any(a == b for a, b in pairwise(said))
    found += [f"no prefix: {last}"] * (not last.startswith("advfeat"))
    found += [f"does not show {one}: {last}" for one in (name, *values) if str(one) not in last]
    found += [f"has no rule: {last}"] * ((PARSED if "usage:" in err else RULES).search(last) is None)
    return found + [f"is long: {last}"] * (len(last) > 2 * LONGEST)


# ------------------------------------------------------------------ every key of every configuration
def wrong(one):
    """Texts that a key cannot be, by what is wrong with them."""
    found = {"text": "zzz", "list": "[[1]]", "table": "{a=1}", "empty": ""}
    if one.kind in (int, float):
        found |= {"not a number": "nan", "infinite": "inf", "negative infinite": "-inf", "date": "2026-01-01"}
        found |= {} if one.low is None else {"low": str(one.low - 1)}
        found |= {} if one.above is None else {"low": str(one.above)}
        found |= {} if one.high is None else {"huge": str(one.high + 1)}
        found |= {"fraction": "1.5"} if one.kind is int else {"too large": "1e999"}
    else:
        found |= {"number": "3"}
    if one.many:
        found |= {"one": "0.5" if one.kind is float else "zzz"}
    if one.kind is str and not one.choices:
        del found["text"], found["empty"]
        if one.many:
            found = {"number": "3", "entry": "[3]"}
    if not one.optional and not (one.kind is str and one.choices and "none" in one.choices):
        found["nothing"] = "none"
    return found


IMAGES = ImageConfig.keys()
OWN = {name: one for name, one in RepresentativesConfig.keys().items() if name not in IMAGES}
KEYS = [("reproduce", Figure3Config.keys()), ("images train", ImageConfig.keys()), ("images reproduce", OWN)]
LISTS = [name for _, keys in KEYS for name, one in keys.items() if one.many]  # messages show the entry that is wrong
PAIRS = [
    pytest.param(command.split(), name, value, id=f"{command}-{name}-{why}")
    for command, keys in KEYS
    for name, one in keys.items()
    for why, value in wrong(one).items()
]


@pytest.mark.parametrize(("command", "name", "value"), PAIRS)
def test_what_a_key_cannot_be(command, name, value, place, capsys):
    shown = [] if value == "none" or name in LISTS else [repr(parse_value(value))]
    assert refused([*command, "--set", f"{name}={value}"], capsys, f"{name} = ", *shown) == []


# ------------------------------------------------------------------ options
#: Arguments ({} is the folder of good things), the name and the value that the message must show.
OPTIONS = [
    ("", "command"), ("reproduc", "command", "'reproduc'"), ("reproduce --sedes 3", "--sedes"),
    ("reproduce --seeds", "--seeds"), ("reproduce --seeds zzz", "--seeds", "'zzz'"), ("reproduce --seeds 1.5",
     "--seeds", "'1.5'"),
    ("reproduce --seeds 0", "n_seeds", 0), ("reproduce --seeds -1", "n_seeds", -1),
    ("reproduce --seeds 1000000000000000", "n_seeds", 1000000000000000),
    ("reproduce --backend cuda", "--backend", "'cuda'"), ("reproduce --backend cupy", "cupy"),
    ("reproduce --dtype float16", "--dtype", "'float16'"),
    ("reproduce --set", "--set"), ("reproduce --set alpha", "--set", "alpha"), ("reproduce --set =3",
     "configuration key"),
    ("reproduce --set alhpa=3", "alhpa"), ("reproduce --set patch_dim=9", "patch_dim", 9),
     ("reproduce --set n_iter=7", "n_iter", 7),
    ("reproduce --set n_robust=65", "n_robust", 65), ("reproduce --set batch_size=10000", "batch_size", 10000),
    ("reproduce --set first_seed=9223372036854775807", "first_seed"), ("reproduce --set rho=1e-40", "rho", 1e-40),
    ("reproduce --set alpha=1e200", "alpha", 1e200), ("reproduce --set lr=1e39", "lr", 1e39),
    ("reproduce --set n_train=1000000000", "seeds, samples"),
    ("reproduce --config {}/nowhere.toml", "nowhere.toml"), ("reproduce --config {}/empty", "empty"),
    ("reproduce --config {}/weights.npz", "weights.npz"), ("reproduce --config", "--config"),
    ("reproduce --weights {}/nowhere.npz", "nowhere.npz"), ("reproduce --weights {}/config.toml", "config.toml"),
    ("reproduce --weights {}/empty", "empty"), ("reproduce --weights {}/weights.npz --set n_neurons=3", "weights",
     "(5, 20, 100)"),
    ("reproduce --out {}/config.toml", "config.toml"), ("reproduce --out {}/full", "full"),
     ("reproduce --out {}/sweep", "sweep"),
    ("reproduce --out {}/run", "n_classes was 3"), ("reproduce --out {}/pictures", "pictures"),
     ("reproduce --out {}/full/mine.txt/x", "mine.txt"),
    ("reproduce --quiet --json", "--json"), ("reproduce extra", "extra"), ("reproduce --out /proc/nowhere/x",
     "/proc/nowhere/x"),
    # ---------------------------------------------------------------- evaluate
    ("evaluate", "--weights"), ("evaluate {}/nowhere", "nowhere"), ("evaluate {}/sweep", "sweep"),
     ("evaluate {}/pictures", "pictures"),
    ("evaluate {}/full/mine.txt", "mine.txt"), ("evaluate {}/run --seeds 7", "seed", 7),
     ("evaluate {}/run --seeds zzz", "--seeds", "'zzz'"),
    ("evaluate {}/run --eps zzz", "--eps", "'zzz'"), ("evaluate {}/run --eps -1", "eps", -1.0),
     ("evaluate {}/run --eps nan", "eps", "nan"),
    ("evaluate {}/run --eps inf", "eps", "inf"), ("evaluate {}/run --set alpha=3", "configuration"),
     ("evaluate {}/run --weights {}/weights.npz", "--weights"),
    ("evaluate --weights {}/weights.npz --seeds 1 2", "--seeds", "1 2"),
     ("evaluate --weights {}/weights.npz --seeds 0", "n_seeds", 0),
    ("evaluate {}/run --out {}/config.toml", "config.toml"),
    # ---------------------------------------------------------------- robustness
    ("robustness", "RUN"), ("robustness {}/nowhere", "nowhere"), ("robustness {}/sweep", "sweep"),
     ("robustness {}/run --samples 0", "samples", 0),
    ("robustness {}/run --samples -3", "samples", -3), ("robustness {}/run --samples 1000000000", "samples"),
     ("robustness {}/run --samples x", "--samples", "'x'"),
    ("robustness {}/run --max-nodes 0", "max_nodes", 0), ("robustness {}/run --rtol 0", "rtol", 0.0),
     ("robustness {}/run --rtol nan", "rtol", "nan"),
    ("robustness {}/run --rtol inf", "rtol", "inf"), ("robustness {}/run --rtol x", "--rtol", "'x'"),
     ("robustness {}/run --seeds 9", "seed", 9),
    ("robustness {}/run --eps-grid zzz", "--eps-grid", "zzz"), ("robustness {}/run --eps-grid 0:1", "--eps-grid",
     "0:1"),
    ("robustness {}/run --eps-grid 0:1:0", "--eps-grid", "0:1:0"), ("robustness {}/run --eps-grid 0:1:100000",
     "--eps-grid", "100000"),
    ("robustness {}/run --eps-grid nan", "eps", "nan"), ("robustness {}/run --eps-grid -1", "eps"),
     ("robustness {}/run --eps-grid 1 0.5", "eps"),
    ("robustness {}/run --eps-grid inf", "eps", "inf"), ("robustness {}/run --eps-grid 0:inf:3", "eps"),
     ("robustness {}/run --out {}/config.toml", "config.toml"),
    # ---------------------------------------------------------------- sweep
    ("sweep", "SPEC.toml"), ("sweep {}/nowhere.toml", "nowhere.toml"), ("sweep {}/weights.npz", "weights.npz"),
     ("sweep {}/empty", "empty"),
    ("sweep {}/config.toml", "alpha"), ("sweep {}/spec.toml --memory 0", "memory", "'0'"),
     ("sweep {}/spec.toml --memory -1", "memory", "'-1'"),
    ("sweep {}/spec.toml --memory much", "memory", "'much'"), ("sweep {}/spec.toml --memory nan", "memory", "'nan'"),
     ("sweep {}/spec.toml --memory inf", "memory", "'inf'"),
    ("sweep {}/spec.toml --memory 1KB", "memory", "'1KB'"), ("sweep {}/spec.toml --memory 2TB", "memory", "'2TB'"),
     ("sweep {}/spec.toml --memory 1.2.3GB", "memory", "'1.2.3GB'"),
    ("sweep {}/spec.toml --jobs 0", "jobs", 0), ("sweep {}/spec.toml --jobs -2", "jobs", -2),
     ("sweep {}/spec.toml --jobs x", "--jobs", "'x'"),
    ("sweep {}/spec.toml --largest-batch 0", "largest_batch", 0), ("sweep {}/spec.toml --scheduler zzz", "scheduler",
     "'zzz'"),
    ("sweep {}/spec.toml --scheduler dask=zzz", "scheduler", "zzz"), ("sweep {}/spec.toml --out {}/full", "full"),
     ("sweep {}/spec.toml --out {}/run", "run"),
    ("sweep {}/spec.toml --out {}/config.toml", "config.toml"),
    # ---------------------------------------------------------------- plot
    ("plot", "DIR"), ("plot {}/nowhere", "nowhere"), ("plot {}/run", "run"), ("plot {}/sweep --x alpha", "--metric"),
     ("plot {}/sweep --metric zzz --x alpha", "metric", "'zzz'"),
    ("plot {}/sweep --metric A --x zzz", "x", "'zzz'"), ("plot {}/sweep --metric A --x alpha --y zzz", "y", "'zzz'"),
     ("plot {}/sweep --metric A --x alpha --y alpha", "y"),
    ("plot {}/sweep --metric A --x alpha --facet zzz", "facet", "'zzz'"),
     ("plot {}/sweep --metric A --x alpha --training zzz", "training", "'zzz'"),
    ("plot {}/sweep --metric A --x alpha --engine zzz", "engine", "'zzz'"),
     ("plot {}/sweep --metric A --x alpha --iteration 99", "iteration", 99),
    ("plot {}/sweep --metric A --x alpha --iteration x", "--iteration", "'x'"),
     ("plot {}/sweep --metric A --x alpha --at lr", "--at", "lr"),
    ("plot {}/sweep --metric A --x alpha --at zzz=1", "zzz"), ("plot {}/sweep --metric A --x alpha --at alpha=[5]",
     "alpha"), ("plot {}/sweep --metric A --x alpha --at alpha=nan", "alpha"),
    ("plot {}/sweep --metric A --x alpha --at beta=2", "beta"), ("plot {}/sweep --metric A", "x"),
    # ---------------------------------------------------------------- images
    ("images", "PART"), ("images zzz", "PART", "'zzz'"), ("images train --preset zzz", "preset", "'zzz'"),
     ("images train --jobs 0", "jobs", 0), ("images train --jobs 0 --seeds 1 2", "jobs", 0),
    ("images train --seeds x", "--seeds", "'x'"), ("images train --seeds -1", "seed", -1),
     ("images train --start {}/nowhere", "nowhere"), ("images train --start {}/pictures@x", "--start", "x"),
    ("images train --start {}/pictures@999", "999"), ("images train --start {}/run", "run"),
     ("images train --set momentum=1", "momentum", 1.0), ("images train --set nesterov=true momentum=0", "nesterov"),
    ("images train --set validation=1", "validation"), ("images train --set dataset=mnist folder={}/empty", "mnist"),
     ("images train --set width=1024 network=wide_resnet depth=100 dataset=digits", "parameters"),
    ("images train --set n_train=100000", "n_train", 100000), ("images train --set norm=l2 eps=0", "eps", 0),
     ("images train --out {}/run", "run"), ("images train --out {}/full", "full"),
    ("images evaluate {}/nowhere", "nowhere"), ("images evaluate {}/run", "run"),
     ("images evaluate {}/pictures --network zzz", "--network", "'zzz'"), ("images evaluate {}/pictures --eps 0",
     "eps", 0.0),
    ("images evaluate {}/pictures --eps nan", "eps", "nan"), ("images evaluate {}/pictures --samples 0", "samples"),
     ("images evaluate {}/pictures --certificate zzz", "--certificate", "'zzz'"),
    ("images verify {}/nowhere", "nowhere"), ("images verify {}/pictures", "pictures"),
     ("images verify {}/full/mine.txt", "mine.txt"), ("images fetch zzz", "name", "'zzz'"),
    ("images fetch mnist --out {}/config.toml", "config.toml"),
     ("images fetch mnist --address zzz --out /proc/nowhere/x", "nowhere"), ("images reproduce --preset zzz",
     "preset", "'zzz'"), ("images reproduce --data zzz", "dataset", "'zzz'"),
    ("images reproduce --model zzz", "network", "'zzz'"), ("images reproduce --width 0", "width", 0),
     ("images reproduce --seeds 0", "n_seeds", 0), ("images reproduce --jobs 0", "jobs", 0),
     ("images reproduce --scheduler zzz", "scheduler", "'zzz'"),
    ("images reproduce --preset small", "--preset", "small"), ("images reproduce --out {}/full", "full"),
     ("images table {}/nowhere", "nowhere"), ("images table {}/pictures", "pictures"), ("images table2 --preset zzz",
     "preset", "'zzz'"),
    ("images attack {}/nowhere --source 1 --target 2", "nowhere"), ("images attack {}/pictures --source 1",
     "--target"), ("images attack {}/pictures --source zzz --target 2", "source", "zzz"),
     ("images attack {}/pictures --source 1 --target 11", "target", "11"),
    ("images attack {}/pictures --source 1 --target 1", "target"),
     ("images attack {}/pictures --source 1 --target 2 --eps 0", "eps", 0.0),
     ("images attack {}/pictures --source 1 --target 2 --eps nan", "eps", "nan"),
     ("images attack {}/pictures --source 1 --target 2 --steps 0", "n_steps", 0),
    ("images attack {}/pictures --source 1 --target 2 --samples 0", "samples", 0),
     ("images attack {}/pictures --source 1 --target 2 --victims {}/nowhere", "nowhere"),
     ("images study {}/nowhere.toml", "nowhere.toml"), ("images study {}/spec.toml", "spec.toml"),
    ("images phases {}/nowhere --run {}/run", "nowhere"), ("images phases {}/pictures --run {}/run", "pictures"),
     ("images phases {}/pictures --run {}/nowhere", "nowhere"), ("images invert {}/nowhere", "nowhere"),
     ("images invert {}/run", "run"),
    ("images invert {}/pictures --start zzz", "--start", "'zzz'"), ("images invert {}/pictures --set n_images=1",
     "n_images", 1), ("images invert {}/pictures --set zzz=1", "zzz"), ("images invert {}/pictures --again",
     "pictures"),
    # ---------------------------------------------------------------- the others
    ("data --set alpha=0", "alpha", 0), ("data --out {}/config.toml", "config.toml"),
     ("data --weights {}/nowhere.npz", "nowhere.npz"), ("examples zzz", "example", "'zzz'"),
     ("examples --all density_ratio", "--all"), ("examples --out {}/empty", "--out"),
    ("examples --force", "--force"), ("validate --only zzz", "zzz"), ("validate --entries {}/nowhere.py",
     "nowhere.py"), ("validate --entries {}/config.toml", "config.toml"),
     ("validate --only D.4 --out {}/config.toml", "config.toml"),
    ("config --set zzz=1", "zzz"), ("config --seeds 0", "n_seeds", 0), ("config --config {}/nowhere.toml",
     "nowhere.toml"), ("config --out {}/config.toml", "config.toml"), ("config --out {}/empty", "empty"),
     ("list {}/nowhere", "nowhere"), ("list {}/config.toml", "config.toml"),
    ("show", "RUN"), ("show {}/nowhere", "nowhere"), ("show {}/full", "full"), ("show {}/config.toml",
     "config.toml"), ("info --seeds 3", "--seeds", "--plan"), ("info --batch 3", "--batch"),
     ("info --network {}/nowhere", "nowhere"), ("info --network {}/config.toml", "config.toml"),
    ("info --plan --set alpha=0", "alpha", 0), ("warmup --only zzz", "--only", "'zzz'"),
     ("warmup --only train:zzz:1", "zzz"), ("warmup --only train:float32:0", "0"), ("warmup --only train", "train"),
     ("explore --port x", "--port", "'x'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "name", "values"),
    [(one[0], one[1], one[2:]) for one in OPTIONS],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_an_option_cannot_be(line, name, values, place, capsys):
    assert refused([part.replace("{}", str(place)) for part in line.split()], capsys, name, *values) == []


@pytest.mark.parametrize("odd", ["", " ", "a\0b", "x" * 5000, "~nobody/x", "-", "\n", "{}", "%s%n", "../" * 400])
@pytest.mark.parametrize("line", [["evaluate"], ["show"], ["list"], ["reproduce", "--config"], ["reproduce",
     "--weights"], ["sweep"],
                                  ["images", "verify"], ["images", "study"], ["info", "--network"]],
                                  ids="-".join)  # fmt: skip
def test_odd_names_of_files(line, odd, place, capsys):
    status, err = main([*line, odd]), capsys.readouterr().err
    assert (status == 2 and err.startswith(("advfeat", "usage"))) or (line == ["list"] and status == 0)
    assert "Traceback" not in err
    assert len(err.strip().split("\n")) == 1 or err.startswith("usage")


@pytest.mark.parametrize("line", [one[0] for one in OPTIONS[:: len(OPTIONS) // 8]])
def test_a_sample_as_real_processes(line, place):
    done = subprocess.run([sys.executable, "-m", "advfeat", *(part.replace("{}",
     str(place)) for part in line.split())],
                          capture_output=True, text=True, check=False, timeout=120)  # fmt: skip
    assert (done.returncode, done.stdout.startswith("Memory") or done.stdout) in ((2, ""), (2, True))
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().split("\n")[-1].startswith("advfeat")


def test_no_option_has_a_rule_twice():
    assert len({one[0] for one in OPTIONS}) == len(OPTIONS)
    assert len(OPTIONS) + len(PAIRS) >= 150
