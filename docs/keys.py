"""``python docs/keys.py`` writes docs/configuration.md from the declarations of all keys."""

from pathlib import Path

from advfeat.experiments.configuration import Figure3Config
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.representatives_configuration import RepresentativesConfig
from advfeat.training.configuration import TrainConfig

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Keys of the configuration

Made by `python docs/keys.py`. `advfeat config` prints the keys of `advfeat reproduce` with their values,
`--out mine.toml` writes them as a commented file, and `--config mine.toml --set KEY=VALUE` brings them back.

| key | type and rule | default | unit | meaning |
| --- | --- | --- | --- | --- |
"""
TRAINING = """
## Of one training, `advfeat.TrainConfig`

| key | type and rule | default | unit | meaning |
| --- | --- | --- | --- | --- |
"""
IMAGES = """
## Of a training on images, `advfeat images train`

| key | type and rule | default | unit | meaning |
| --- | --- | --- | --- | --- |
"""
REPRESENTATIVES = """
## Of the experiment on representatives, `advfeat images reproduce`, beside those of a training

| key | type and rule | default | unit | meaning |
| --- | --- | --- | --- | --- |
"""


def rows(configuration, but=()) -> str:
    return "".join(
        f"| `{name}` | {one.rule} | {one.default_word} | {one.unit} | {one.help} |\n"
        for name, one in configuration.keys().items() if name not in but
    )  # fmt: skip


def page() -> str:
    of_training = set(ImageConfig.keys()) - {"training"}
    return (HEAD + rows(Figure3Config) + IMAGES + rows(ImageConfig) + REPRESENTATIVES
            + rows(RepresentativesConfig, of_training) + TRAINING + rows(TrainConfig))  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
