"""Any value for any key of any configuration, by hypothesis: refused by name, or taken and the same when read again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import faults

from advfeat import TrainConfig
from advfeat.core.config import parse_pair, parse_value
from advfeat.experiments.configuration import Figure3Config
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.representatives_configuration import RepresentativesConfig
from advfeat.images.inversion import Inversion

GIVEN = {
    Figure3Config: {}, ImageConfig: {}, RepresentativesConfig: {}, Inversion: {},
    TrainConfig: {"lr": 0.1, "n_iter": 5, "adversarial": True, "ascent_lr": 1.0, "eps": 0.1},
}  # fmt: skip
KEYS = [(kind, name) for kind in GIVEN for name in kind.keys()]  # noqa: SIM118 - a class method
WORDS = sorted({word for kind in GIVEN for one in kind.keys().values() for word in one.choices or ()})
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.integers(-3, 3) | st.floats() | st.text() | st.sampled_from(WORDS)
    | st.binary() | st.complex_numbers() | st.sampled_from([10**30, -(10**5000), 2**63, 1e308, 5e-324, "nan", "none",
     "\0", "'"])
)  # fmt: skip
NUMPY = st.sampled_from([
    np.float32(0.1), np.float64("nan"), np.int8(3), np.array(2), np.array([0.1, 0.2]), np.array([]), np.zeros((2,
     2)), np.array("x"),
    np.array([None]), np.array([1j]), np.bool_(True), np.uint64(2**63), np.array([1, 2], ">i4"), np.longdouble(1),
])  # fmt: skip
VALUES = PLAIN | NUMPY | st.lists(PLAIN, max_size=3) | st.tuples(PLAIN) | st.dictionaries(st.text(), PLAIN,
     max_size=2)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(KEYS), VALUES)
def test_a_value_is_refused_by_name_or_comes_back(key, value):
    kind, name = key
    config = None

    def make():
        nonlocal config
        config = kind(**GIVEN[kind] | {name: value})

    said = faults(make, name)
    if said != ["is taken"]:
        assert said == []
        return
    assert "\n" not in repr(config)
    assert kind.from_dict(config.as_dict()) == config
    assert hash(config) == hash(kind.from_dict(config.as_dict()))


@pytest.mark.parametrize("kind", GIVEN, ids=lambda one: one.__name__)
def test_a_written_file_of_odd_texts_is_read_back(kind, tmp_path):
    texts = [name for name, one in kind.keys().items() if one.kind is str and not one.choices and not one.many]
    for text in ("a'b", 'a"b', "a\\b", "é\u202e", "#", "= 3", "[x]", "nan", "a\tb"):
        config = kind(**GIVEN[kind] | dict.fromkeys(texts, text))
        (tmp_path / "a.toml").write_text(config.toml(), encoding="utf-8")
        assert kind.build(tmp_path / "a.toml") == config


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_any_text_of_the_command_line_is_a_value_or_itself(text):
    parse_value(text)
    if "=" in text:
        assert parse_pair("--set", text)[0] == text.partition("=")[0].strip()
