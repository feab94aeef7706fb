"""Declared configurations: rules, files, the command line's words; tables and documentation from one place."""

import runpy
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from advfeat import TrainConfig
from advfeat.core.config import Configuration, key, parse_pair, parse_value
from advfeat.experiments.configuration import Figure3Config
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.representatives_configuration import RepresentativesConfig

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Small(Configuration):
    size: int = key(3, "how many", low=1, high=10)
    rate: float = key(0.5, "how fast", "1 / s", above=0)
    limit: float | None = key(None, "where it ends", low=0)
    kind: str = key("a", "which", choices=("a", "bb"))
    fine: bool = key(True, "whether")
    each: float = key(1.0, "of every run", low=0, per_run=True)


BAD = {
    "size low": ({"size": 0}, "size = 0: must be an integer >= 1 and <= 10"),
    "size high": ({"size": 11}, "size = 11: must be an integer >= 1 and <= 10"),
    "size kind": ({"size": 3.0}, r"size = 3\.0: must be an integer"),
    "size bool": ({"size": True}, "size = True: must be an integer"),
    "rate": ({"rate": 0}, "rate = 0: must be a number, finite and > 0"),
    "rate nan": ({"rate": float("nan")}, "rate = nan: must be a number, finite"),
    "rate text": ({"rate": "fast"}, "rate = 'fast': must be a number"),
    "limit": ({"limit": -1}, "limit = -1: must be a number"),
    "kind": ({"kind": "b"}, "kind = 'b': unknown; did you mean 'bb'"),
    "kind list": ({"kind": ["a"]}, r"kind = \['a'\]: unknown"),
    "fine": ({"fine": "yes"}, "fine = 'yes': unknown"),
    "each": ({"each": [1.0, -1.0]}, r"each = -1\.0: must be a number"),
    "unknown": ({"siez": 3}, "siez: unknown configuration key; did you mean 'size'"),
    "path": ({"path": "/etc/passwd"}, "path: unknown configuration key"),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_what_breaks_a_rule_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        Small.from_dict(values)


def test_a_missing_key_takes_its_default():
    assert Small.from_dict({"size": 4}) == Small(size=4)
    assert Small.from_dict({}) == Small()
    with pytest.raises(ValueError, match="lr: must be given, a number > 0"):
        TrainConfig.from_dict({"n_iter": 3})
    with pytest.raises(ValueError, match="configuration = 3: must be a table"):
        Small.from_dict(3)


def test_numbers_get_the_keys_type():
    assert Small(rate=2, limit=np.float32(1)) == Small(rate=2.0, limit=1.0)
    assert type(Small(rate=2).rate) is float
    assert type(Small(size=np.int64(2)).size) is int


CHANGES = {
    Small: {"size": 4, "rate": 1e-12, "limit": 2.0, "kind": "bb", "fine": False},
    Figure3Config: {"batch_size": 3, "alpha": 4.0, "balanced": False, "norm": "l2", "n_iter": 40, "first_seed": 7},
}


@pytest.mark.parametrize("configuration", CHANGES)
@pytest.mark.parametrize("changed", [False, True])
def test_a_written_file_is_read_back(configuration, changed, tmp_path):
    config = configuration(**CHANGES[configuration] if changed else {})
    (tmp_path / "c.toml").write_text(config.toml())
    assert configuration.build(tmp_path / "c.toml") == config
    assert configuration.from_dict(config.as_dict()) == config
    for one in configuration.keys().values():
        assert one.help in config.toml()
        assert one.unit in config.toml()


@pytest.mark.parametrize(
    "config", [Figure3Config(**CHANGES[Figure3Config]), ImageConfig(width=3), RepresentativesConfig(starts=("noise",))]
)
def test_every_pair_of_the_table_can_be_set(config):
    kind = type(config)
    assert kind.build(None, [f"{name}={value}" for name, value, *_ in config.rows()]) == config
    defaults = kind.build(None, [f"{name}={default}" for name, _, default, *_ in config.rows()])
    assert defaults == kind()


def test_where_a_value_comes_from(tmp_path):
    (tmp_path / "c.toml").write_text('rate = 2.0\nlimit = "none"\nkind = "bb"\n')
    assert Small.build(tmp_path / "c.toml", ["rate=3.0"], None, size=5) == Small(size=5, rate=3.0, kind="bb")
    assert Small.build(None, (), {"rate": 2.0}) == Small(rate=2.0)
    with pytest.raises(ValueError, match=r"rate = 3\.0: contradicts the given weights, which hold rate = 2\.0"):
        Small.build(None, ["rate=3.0"], {"rate": 2.0})
    with pytest.raises(ValueError, match=r"--set 'rate': must be key=value"):
        Small.build(None, ["rate"])
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        Small.build(tmp_path / "none.toml")


@pytest.mark.parametrize("text", ["x = [" + "[" * 3000, "x = 1\ny", "x = " + "1" * 5000, "\xff"])
def test_a_file_that_is_no_toml_is_named(text, tmp_path):
    (tmp_path / "c.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"c\.toml: not a TOML file|unknown configuration key"):
        Small.build(tmp_path / "c.toml")


def test_words_of_the_command_line():
    values = {"3": 3, "3.5": 3.5, "true": True, "none": None, "linf": "linf", "[1, 2]": [1, 2]}
    assert {text: parse_value(text) for text in values} == values
    assert parse_value("[" * 3000) == "[" * 3000
    assert parse_pair("--at", " a = 3 ") == ("a", 3)


def outside(one):
    """Values that break a key's rule."""
    if one.low is not None:
        yield one.low - 1
    if one.above is not None:
        yield one.above
    if one.high is not None:
        yield one.high + 1
    yield "no such thing"
    if not one.optional:
        yield None


@pytest.mark.parametrize("name", Figure3Config.keys())
def test_every_key_of_figure_3_has_a_rule_that_holds(name):
    for value in outside(Figure3Config.keys()[name]):
        with pytest.raises(ValueError, match=f"{name} = "):
            Figure3Config(**{name: value})


@pytest.mark.parametrize("name", TrainConfig.keys())
def test_every_key_of_a_training_has_a_rule_that_holds(name):
    base = TrainConfig(lr=0.1, n_iter=5, adversarial=True, ascent_lr=1.0, eps=0.1)
    for value in outside(TrainConfig.keys()[name]):
        with pytest.raises(ValueError, match=f"{name} = "):
            replace(base, **{name: value})


def test_every_key_has_a_meaning_and_the_page_shows_it():
    """docs/configuration.md is what `python docs/keys.py` writes."""
    for configuration in (Figure3Config, TrainConfig, ImageConfig, RepresentativesConfig):
        for one in configuration.keys().values():
            assert one.help
            assert "\n" not in one.help + one.unit + one.rule
        assert list(configuration.keys()) == [one.name for one in fields(configuration)]
    assert TrainConfig.keys()["lr"].default is MISSING
    page = runpy.run_path(str(ROOT / "docs" / "keys.py"))["page"]()
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == page
