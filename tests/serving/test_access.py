import pytest

from synfer_ray.errors import InputError
from synfer_ray.serving.access import Access, is_loopback
from synfer_ray.serving.refusal import Refusal


def test_the_token_is_needed_and_nothing_else_will_do(monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret")
    access = Access("SECRET", "127.0.0.1")
    access.check_token("Bearer s3cret")
    for wrong in ("", "s3cret", "Bearer ", "Bearer s3cre", "Bearer s3crets", "bearer s3cret", "Bearer é"):
        with pytest.raises(Refusal) as refused:
            access.check_token(wrong)
        assert refused.value.status == 401 and "s3cret" not in refused.value.message


def test_without_a_token_every_header_passes():
    Access("", "127.0.0.1").check_token("whatever")


@pytest.mark.parametrize("value", [None, ""])
def test_a_token_that_is_not_there_is_refused_at_the_start(monkeypatch, value):
    monkeypatch.delenv("SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("SECRET", value)
    with pytest.raises(InputError, match="'SECRET'"):
        Access("SECRET", "127.0.0.1")


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:5555", True),
        ("ipv6:%5B::1%5D:5555", True),
        ("ipv6:[::ffff:127.0.0.1]:5555", True),
        ("unix:/tmp/socket", True),
        ("ipv4:192.0.2.7:5555", False),
        ("ipv6:%5B2001:db8::1%5D:5555", False),
        ("ipv6:[::ffff:192.0.2.7]:5555", False),
        ("", False),
    ],
)
def test_a_local_server_answers_its_own_machine_only(peer, local):
    Access("", "0.0.0.0").check_peer(peer)
    if local:
        Access("", "localhost").check_peer(peer)
        return
    with pytest.raises(Refusal) as refused:
        Access("", "127.0.0.1").check_peer(peer)
    assert refused.value.status == 403


def test_loopback_addresses():
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.8.8.8", "::1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.0.2.7", "example.org", ""]))
