import pytest

from licht.core import errors
from licht.core.errors import InvalidRequest, LichtError


def every_error() -> list[type[LichtError]]:
    found = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, LichtError)]
    assert len(found) >= 12
    return found


def test_codes_are_unique_and_exit_codes_tell_whose_fault_it_is() -> None:
    found = every_error()
    assert len({error.code for error in found}) == len(found)
    for error in found:
        assert error.code.replace("_", "").isalpha()
        assert error.code.islower()
        assert error.exit_code in ((3,) if error is errors.DoesNotFit else (1, 2))
        if issubclass(error, InvalidRequest):
            assert error.exit_code == 2


@pytest.mark.parametrize("error", every_error())
def test_a_message_is_one_line(error: type[LichtError]) -> None:
    made = error("the first\n   line \t and\r\nthe second", field="size")
    assert made.message == str(made) == "the first line and the second"
    assert made.field == "size"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("right\u202eleft", "right\\u202eleft"),
        ("bytes \udcff", "bytes \\udcff"),
        ("zero\0byte", "zero\\x00byte"),
        ("Fluß 一只猫 🦊", "Fluß 一只猫 🦊"),
    ],
)
def test_names_from_outside_are_harmless_in_a_terminal(given: str, shown: str) -> None:
    message = LichtError(given).message
    assert message == shown
    assert message.encode("utf-8").decode("utf-8").isprintable()


def test_an_endless_name_is_cut_in_the_middle() -> None:
    message = LichtError("there is no model " + "a" * 100_000 + "; use another").message
    assert len(message) <= 1000
    assert message.startswith("there is no model aaa")
    assert " ... " in message
    assert message.endswith("aaa; use another")
    assert LichtError("b" * 1000).message == "b" * 1000
