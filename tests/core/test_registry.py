import json
import os
import subprocess
import sys

import pytest

from densecli.core import plugins
from densecli.core import registry as module
from densecli.core.errors import DenseCLIError
from densecli.core.plugins import load_plugins, use_plugins
from densecli.core.registry import Registry, registry, unknown_name

REGISTERS = """
from densecli.core.registry import registry

class Colour:
    pass

registry("{kind}", noun="colour").add("{name}", Colour, help="A colour.")
"""


@pytest.fixture
def kind(request, monkeypatch, tmp_path):
    """A kind of this test alone, with no plug-ins in the environment, in an empty working folder."""
    kind = f"colours_{request.node.name}"
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    registry(kind, noun="colour")
    yield kind
    module._REGISTRIES.pop(kind, None)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def plugin(folder, name, kind, value):
    path = folder / f"{name}.py"
    path.write_text(REGISTERS.format(kind=kind, name=value))
    return path


def test_registry__is_one_for_a_kind(kind):
    registry(kind, noun="colour").add("red", 1, help="Warm.")
    assert registry(kind)["red"] == 1
    assert [(entry.name, entry.help) for entry in registry(kind).entries()] == [("red", "Warm.")]


def test_register__keeps_what_it_decorates(kind):
    @registry(kind).register("red", help="Warm.", needs="paint")
    class Red:
        pass

    assert registry(kind)["red"] is Red
    assert registry(kind).entries()[0].needs == "paint"


def test_names__in_the_order_of_registration(kind):
    for name in ("red", "green", "blue"):
        registry(kind).add(name, name.upper(), help=name)
    colours = registry(kind)
    assert list(colours) == ["red", "green", "blue"] and len(colours) == 3
    assert dict(colours.items()) == {"red": "RED", "green": "GREEN", "blue": "BLUE"}
    assert "red" in colours and "pink" not in colours


def test_add__a_name_that_is_taken(kind):
    registry(kind).add("red", 1, help="Warm.")
    with pytest.raises(DenseCLIError, match=r"two .* called 'red'"):
        registry(kind).add("red", 2, help="Another.")
    assert registry(kind)["red"] == 1


def test_look_up__an_unknown_name_suggests_the_nearest(kind):
    registry(kind, noun="colour").add("vermilion", 1, help="Red.")
    with pytest.raises(DenseCLIError, match="no colour called 'vermillion'") as caught:
        registry(kind)["vermillion"]
    assert "Did you mean vermilion?" in caught.value.hint
    assert "--plugin MODULE" in caught.value.hint


def test_unknown_name__lists_all_where_none_is_near():
    assert unknown_name("colour", "xyz", ["red", "blue"]).hint == "Known: red, blue."
    assert unknown_name("colour", "xyz", []).hint == "Known: none."


def test_add_lazy__imports_at_the_first_look_up(kind, tmp_path, monkeypatch):
    plugin(tmp_path, "lazy_colours", kind, "unused")
    monkeypatch.syspath_prepend(tmp_path)
    registry(kind).add_lazy("red", "lazy_colours:Colour", help="Warm.")
    assert [entry.name for entry in registry(kind).entries()] == ["red"]
    assert "lazy_colours" not in sys.modules
    assert registry(kind)["red"] is sys.modules["lazy_colours"].Colour


def test_load__imports_every_module_of_the_package(kind, tmp_path, monkeypatch):
    package = tmp_path / "paintbox"
    package.mkdir()
    (package / "__init__.py").touch()
    plugin(package, "warm", kind, "red")
    plugin(package, "cold", kind, "blue")
    monkeypatch.syspath_prepend(tmp_path)
    assert sorted(registry(kind, package="paintbox")) == ["blue", "red"]


def test_use_plugins__an_importable_module(kind, tmp_path, monkeypatch):
    plugin(tmp_path, "colours_by_name", kind, "red")
    monkeypatch.syspath_prepend(tmp_path)
    use_plugins(["colours_by_name"])
    assert list(registry(kind)) == ["red"]
    assert os.environ[plugins.VARIABLE] == "colours_by_name"


@pytest.mark.parametrize("written", ["colours_file.py", "colours_file", "./colours_file.py"])
def test_use_plugins__a_file_of_the_working_folder(kind, tmp_path, written):
    path = plugin(tmp_path, "colours_file", kind, "red")
    use_plugins([written])
    assert list(registry(kind)) == ["red"]
    # Other processes may run in another folder.
    assert os.environ[plugins.VARIABLE] == str(path)
    assert str(tmp_path) not in sys.path and "" not in sys.path


def test_load_plugins__of_the_environment(kind, tmp_path, monkeypatch):
    paths = [plugin(tmp_path, f"colours_env_{name}", kind, name) for name in ("red", "blue")]
    monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join(map(str, paths)))
    assert list(registry(kind)) == ["red", "blue"]


def test_load_plugins__each_once(kind, tmp_path):
    path = tmp_path / "colours_once.py"
    path.write_text(f"print('imported', file=open({str(tmp_path / 'log')!r}, 'a'))")
    use_plugins([str(path)])
    use_plugins([str(path)])
    load_plugins()
    assert (tmp_path / "log").read_text() == "imported\n"


def test_plugin__may_look_names_up_while_it_is_imported(kind, tmp_path):
    path = plugin(tmp_path, "colours_eager", kind, "red")
    path.write_text(path.read_text() + f"\nassert registry({kind!r})['red'] is Colour\n")
    use_plugins([str(path)])
    assert list(registry(kind)) == ["red"]


def test_load_plugins__entry_points_of_installed_distributions(tmp_path):
    """In a process of its own: those of this one were loaded long ago."""
    plugin(tmp_path, "colours_installed", "colours", "red")
    metadata = tmp_path / "colours-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[densecli]\ncolours = colours_installed\n")
    code = (
        "from json import dumps; from densecli.core.registry import registry;"
        "print(dumps(list(registry('colours', noun='colour'))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(done.stdout) == ["red"]


@pytest.mark.parametrize("text", ["1 / 0", "import no_such_module_anywhere", "(", "import sys; sys.exit(3)"])
def test_plugin__that_fails(kind, tmp_path, text):
    path = tmp_path / "colours_broken.py"
    path.write_text(text)
    with pytest.raises(DenseCLIError, match=r"colours_broken\.py cannot be imported.*line 1\)") as caught:
        use_plugins([str(path)])
    assert caught.value.hint == "Correct the file."
    assert "colours_broken" not in sys.modules


def test_plugin__that_fails_with_several_lines_is_told_in_one(kind, tmp_path):
    path = tmp_path / "colours_verbose.py"
    path.write_text("raise ValueError('one' + chr(10) + 'two')")
    with pytest.raises(DenseCLIError, match="ValueError: one two"):
        use_plugins([str(path)])


@pytest.mark.parametrize("name", ["no_such_plugin", "no.such.plugin", ".", "", "..", "two words"])
def test_plugin__that_is_not_there(kind, name):
    with pytest.raises(DenseCLIError, match="no plug-in called") as caught:
        use_plugins([name])
    assert "path of a .py file" in caught.value.hint


def test_plugin__whose_file_is_not_there(kind, tmp_path):
    with pytest.raises(DenseCLIError, match=r"no plug-in .*/missing\.py") as caught:
        use_plugins(["missing.py"])
    assert ".py file" in caught.value.hint


def test_plugin__whose_file_has_a_dot_in_its_name(kind, tmp_path):
    plugin(tmp_path, "warm.colours", kind, "red")
    with pytest.raises(DenseCLIError, match="has a dot") as caught:
        use_plugins(["warm.colours.py"])
    assert "Rename" in caught.value.hint


def test_plugin__that_registers_a_taken_name_is_named(kind, tmp_path):
    registry(kind).add("red", 1, help="Warm.")
    path = plugin(tmp_path, "colours_twice", kind, "red")
    with pytest.raises(DenseCLIError, match=r"colours_twice\.py cannot be used.*called 'red'"):
        use_plugins([str(path)])


def test_load_plugins__an_installed_one_that_fails_names_its_distribution(tmp_path):
    metadata = tmp_path / "colours-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[densecli]\nwarm = colours_failing\n")
    (tmp_path / "colours_failing.py").write_text("1 / 0")
    code = "from densecli.cli import main; main(['list', 'methods'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "The plug-in warm of colours cannot be imported: ZeroDivisionError" in done.stderr
    assert "uninstall colours" in done.stderr


@pytest.mark.parametrize("name", ["json", "torch", "wave", "densecli"])
def test_plugin__whose_file_has_the_name_of_another_module(kind, tmp_path, name):
    """Some are imported already, some are not."""
    path = plugin(tmp_path, name, kind, "red")
    before = sys.modules.get(name)
    with pytest.raises(DenseCLIError, match=f"name of another module, {name}") as caught:
        use_plugins([str(path)])
    assert "Rename" in caught.value.hint
    assert sys.modules.get(name) is before
    assert list(registry(kind)) == []


def test_registry__is_generic():
    colours: Registry[int] = Registry("colours")
    colours.add("red", 1, help="Warm.")
    assert colours["red"] + 1 == 2


def test_registry__of_a_misspelt_kind(monkeypatch):
    with pytest.raises(DenseCLIError, match="no kind of name called 'metods'") as caught:
        registry("metods")
    assert "Did you mean methods" in caught.value.hint
    assert "metods" not in module._REGISTRIES


def test_look_up__a_value_of_another_class(kind):
    registry(kind, of=str).add("red", 1, help="Warm.")
    with pytest.raises(DenseCLIError, match="colour red is registered as int, not as str"):
        registry(kind)["red"]


@pytest.mark.parametrize("target", ["no_such_module:red", "math:red"])
def test_look_up__a_lazy_value_that_is_not_there(kind, target):
    registry(kind).add_lazy("red", target, help="Warm.")
    with pytest.raises(DenseCLIError, match=f"colour red cannot be imported from {target}"):
        registry(kind)["red"]


def test_add__a_reserved_name(kind):
    registry(kind, reserved=["red"])
    with pytest.raises(DenseCLIError, match="called 'red'"):
        registry(kind).add("red", 1, help="Warm.")


def test_plugins__a_tilde_in_the_environment(tmp_path, monkeypatch):
    (tmp_path / "tilde_plugin.py").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(plugins.VARIABLE, "~/tilde_plugin.py")
    load_plugins()
    # What other machines are told: their home is another.
    assert os.environ[plugins.VARIABLE] == str(tmp_path / "tilde_plugin.py")
