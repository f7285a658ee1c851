"""Options of every command: help, defaults, ranges, the configuration file, suggestions."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from building import build_here
from click.testing import CliRunner, Result

from densecli.cli import NAMES, main
from densecli.commands.build_shards import build_shards
from densecli.commands.command import Command, describe
from densecli.commands.config_file import read_config
from densecli.commands.options import Options
from densecli.commands.train import train, train_config
from densecli.core.errors import DenseCLIError
from densecli.core.settings import settings_of
from densecli.pipeline.config import BuildConfig
from densecli.train.config import TrainConfig
from densecli.train.run_config import RESOLVED


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of four scenes with labels."""
    store = str(tmp_path_factory.mktemp("labelled") / "store")
    weights = {"scenes-l": "random:0"}
    build_here(
        BuildConfig(
            dataset="scenes", limit=4, store=store, teachers=("scenes-l",), weights=weights, device="cpu"
        )
    )
    return store


def command(name: str) -> Command:
    found = main.get_command(click.Context(main), name)
    assert isinstance(found, Command)
    return found


COMMANDS = {name: command(name) for name in (*NAMES, "demo")}
FLOATS = [
    (name, each) for name, found in COMMANDS.items() for each in found.settings.values() if each.type is float
]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_say__no_name_from_data_reaches_the_terminal_as_it_is(capsys, tmp_path) -> None:
    name = "bus\x1b[31m\x07\u202egpj"
    Options(given={}, json=str(tmp_path / "out.json")).say(f"class\n{name}", {"name": name})
    assert capsys.readouterr().out == "class\nbus��gpj\n"
    assert json.loads((tmp_path / "out.json").read_text()) == {"name": name}
    Options(given={}, json="-").say(name, {"name": name})
    said = capsys.readouterr()
    assert said.out.replace("\n", "").isprintable() and said.err == "bus��gpj\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help__has_a_line_and_a_default_for_every_option(name: str) -> None:
    found = COMMANDS[name]
    text = "".join(run(name, "--help").output.split())
    rows = describe(found)
    assert {row.name for row in rows} == found.settings.keys()
    for row in rows:
        assert row.help.endswith(".") and row.help[0].isupper(), row
        assert row.default or row.name in {"dataset", "layout", "key", "photos", "shared"}, row
        assert "".join(row.text.split()) in text and row.flag in text


def test_help__loads_neither_torch_nor_ray() -> None:
    code = """
import sys
from densecli.cli import main
main(["--help"], standalone_mode=False)
main(["train", "--help"], standalone_mode=False)
print("loaded", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ray"} & set(done.stdout.partition("\nloaded ")[2].split())


def test_options__with_one_name_agree_in_every_command() -> None:
    """A setting that two configuration classes of a command share has one type."""
    for found in COMMANDS.values():
        flags = [each.option for each in found.settings.values()]
        assert len(flags) == len(set(flags))


@pytest.mark.parametrize(("name", "of"), FLOATS, ids=[f"{name}-{of.name}" for name, of in FLOATS])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_floats__must_be_finite_as_a_flag_and_in_a_file(name: str, of, value: str, tmp_path: Path) -> None:
    word = f"x={value}" if of.shape == "mapping" else value
    done = run(name, of.flag, *[word] * of.length)
    assert done.exit_code == 2 and "finite" in done.output
    written = {"mapping": f"{{x = {value}}}", "fixed": f"[{', '.join([value] * of.length)}]"}
    written["list"] = f"[{value}]"
    (tmp_path / "c.toml").write_text(f"{of.name} = {written.get(of.shape, value)}\n")
    done = run(name, "--config", tmp_path / "c.toml")
    assert done.exit_code == 1 and "finite" in done.output and of.flag in done.output


def test_precedence__flag_then_file_then_preset_then_default(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('method = "declip"\ntheta = 0.5\nlr = 1\nbatch-size = 3\nteacher = "vitl14"\n')
    given = train.parse(["--config", str(file), "--theta", "0.6"])
    config = given.make(TrainConfig, store="s", student="s", run="r", weights=None)
    assert (config.theta, config.lr, config.batch_size, config.teachers) == (0.6, 1.0, 3, ("vitl14",))
    assert (config.mode, config.alpha) == ("qq+scale", 0.7)
    assert {"mode", "alpha"} <= {*config.from_preset} and {"theta", "lr"}.isdisjoint(config.from_preset)
    assert config.spatial_side == settings_of(TrainConfig)["spatial_side"].default
    file.write_text('method = "declip"\nmode = "value"\n')
    given = train.parse(["--config", str(file)])
    config = given.make(TrainConfig, student="s", run="r", store="s", weights=None)
    assert config.mode == "value" and "mode" not in config.from_preset


def test_config__a_switch_of_the_file_is_turned_off_by_a_flag(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("compile = true\n")
    words = ["--config", str(tmp_path / "c.toml")]
    assert train.parse(words).given["compile"] is True
    assert train.parse([*words, "--no-compile"]).given["compile"] is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thetta = 0.5", "Did you mean theta?"),
        ("theta = 7", "from 0 to 1"),
        ('epochs = "six"', "a whole number"),
        ('precision = "bf61"', "did you mean bf16?"),
        ("total_step = 5", "no option"),
        ("theta = ", "cannot be read"),
        ("batch-size = 2\nbatch_size = 3", "sets --batch-size twice"),
        ('config = "other.toml"', "no option 'config'"),
        ('run = ""', "must not be empty"),
    ],
)
def test_config__refuses(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    done = run("train", "--config", tmp_path / "c.toml")
    assert done.exit_code == 1 and message in done.output


def test_config__keys_that_follow_from_a_run_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"theta": 0.5, "weights": "random:0", **dict.fromkeys(RESOLVED, 1)}))
    assert read_config(str(file), train) == {"theta": 0.5, "weights": [("", "random:0")]}
    file.write_text('{"total_steps": 1, "decoupling": 2}')
    assert read_config(str(file), train) == {"decoupling": "stuff-only"}
    file.write_text('{"decoupling": 2}')
    assert read_config(str(file), train) == {"decoupling": "2"}
    file.write_text('{"total_steps": 1}')
    with pytest.raises(DenseCLIError, match="total_steps"):
        read_config(str(file), build_shards)


@pytest.mark.parametrize("file", ["", "."])
def test_json__into_what_is_no_file_is_refused_before_the_work(file: str) -> None:
    """The store is not there, which would be said later."""
    done = run("info", "--store", "no-such-store", "--json", file)
    assert done.exit_code > 0 and "no store" not in done.output
    assert "is a folder" in done.output or "empty" in done.output


def test_json__that_cannot_be_written_is_one_sentence(labelled: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("info", "--store", labelled, "--json", tmp_path / "file" / "x.json")
    assert done.exit_code == 1 and "Traceback" not in done.output and "file" in done.output


def test_config__of_a_run_gives_the_same_run(labelled: str, tmp_path: Path) -> None:
    words = ["train", "--store", labelled, "--student", "scenes-s", "--device", "cpu"]
    words += [
        "--weights",
        "scenes-s=random:0",
        "--batch-size",
        "3",
        "--max-steps",
        "1",
        "--run",
        tmp_path / "r",
    ]
    first = run(*words)
    assert first.exit_code == 0, first.output
    file = tmp_path / "r" / "config.json"
    made = json.loads(file.read_text())
    assert {"losses", "alpha"} <= {*made["preset"]} and "lr" in made["preset"]
    again = run("train", "--config", file, "--run", tmp_path / "again")
    assert again.exit_code == 0, again.output
    other = json.loads((tmp_path / "again" / "config.json").read_text())
    for config in (made, other):
        del config["run"], config["preset"]
    assert other == made
    resumed = run("train", "--config", file, "--dry-run")
    assert resumed.exit_code == 0 and "all 1 steps are done" in resumed.output


def test_suggestions__of_commands_options_and_values() -> None:
    done = run("trian")
    assert done.exit_code == 2 and "Did you mean train?" in done.output
    done = run("train", "--thetta", "0.5")
    assert done.exit_code == 2 and "--theta" in done.output.partition("--thetta")[2]
    done = run("train", "--precision", "bf61")
    assert done.exit_code == 2 and "did you mean bf16?" in done.output


def test_paths__a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.toml").write_text('refiner = "~/refiner"\n')
    words = ["--config", "~/c.toml", "--run", "~/run", "--weights", "scenes-s=~/w", "--student", "scenes-s"]
    given = train.parse([*words, "--store", "~/s"]).given
    assert (given["refiner"], given["run"]) == (str(tmp_path / "refiner"), str(tmp_path / "run"))
    assert given["store"] == (str(tmp_path / "s"),)
    assert given["weights"] == (("scenes-s", str(tmp_path / "w")),)


def test_weights__of_another_model_are_refused(labelled: str) -> None:
    words = ["--store", labelled, "--student", "scenes-s"]
    assert train_config(train.parse([*words, "--weights", "random:3"])).weights == "random:3"
    with pytest.raises(DenseCLIError, match="eva02-b16"):
        train_config(train.parse([*words, "--weights", "eva02-b16=random:3"]))


def test_paths__every_option_that_names_one_takes_a_tilde() -> None:
    """`--run=~/x` reaches the program as it is written: shells expand a ~ only where a word begins."""
    group = click.Context(main)
    words = re.compile(r"\b(FILE|DIR|PATH|URL|MODULE|RUN)\b")
    named = [
        (name, of)
        for name in NAMES
        for of in main.get_command(group, name).settings.values()
        if words.search(of.metavar) and of.name != "ray_address"
    ]
    assert len(named) > 80
    home = os.path.expanduser("~")
    for name, of in named:
        value = of.parse("vitb16=~/x" if of.named or of.shape == "mapping" else "~/x")
        assert f"{home}/x" in (value if isinstance(value, tuple) else (value,)), f"{name} {of.flag}"


@pytest.mark.parametrize("name", ["deep.json", "deep.toml", "cut.json", "latin.toml"])
def test_config__a_file_that_is_none_is_a_sentence(tmp_path: Path, name: str) -> None:
    deep = b"[" * 100_000
    content = {
        "deep.json": deep,
        "deep.toml": b"a = " + deep,
        "cut.json": b'{"lr"',
        "latin.toml": b"\xe9 = 1",
    }
    (tmp_path / name).write_bytes(content[name])
    with pytest.raises(DenseCLIError, match=rf"{name} cannot be read"):
        read_config(str(tmp_path / name), train)
