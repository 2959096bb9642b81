import pytest

from berg.runtime.own.images.names import InvalidName, image_id, parse


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("someone/app", "docker.io/someone/app:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("registry.k8s.io/e2e-test-images/agnhost:2.63.0", "registry.k8s.io/e2e-test-images/agnhost:2.63.0"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("[::1]:5000/app:v1", "[::1]:5000/app:v1"),
        ("Registry/app", "Registry/app:latest"),
        ("a.b/c/d__e/f-g.h:t_1", "a.b/c/d__e/f-g.h:t_1"),
        ("app@sha256:" + "a" * 64, "docker.io/library/app@sha256:" + "a" * 64),
        ("app:v1@sha256:" + "a" * 64, "docker.io/library/app:v1@sha256:" + "a" * 64),
    ],
)
def test_names_are_normalised(text: str, full: str) -> None:
    assert str(parse(text)) == full


@pytest.mark.parametrize(
    "text",
    ["", "UPPER", "a//b", "a:", "a:b:c", "-a", "a@sha256:short", "a b", "a/../b", "a@md5:" + "a" * 32, "a" * 300],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        parse(text)


def test_an_image_id_is_not_a_name() -> None:
    assert image_id("b" * 64) == image_id("sha256:" + "b" * 64) == "sha256:" + "b" * 64
    assert image_id("sha256:" + "b" * 63) == ""
