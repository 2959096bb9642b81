"""What upstream's server (v1.36.2) said to the same answers of webhooks."""

import json

import pytest

from berg.apiserver.http import hook_answer
from berg.apiserver.http.hook_client import _path
from berg.apiserver.http.hook_credentials import BadCredentials, Credentials, configured, headers
from berg.apiserver.http.hooks import HookError

JSON = "application/json"
NO_OBJECT = (
    "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion "
    'string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }}'
)
STATUS = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "odd", "code": 503}


@pytest.mark.parametrize(
    ("code", "media", "body", "message"),
    [
        (200, JSON, b"", "0-length response with status code: 200 and content type: application/json"),
        (200, JSON, b"hello", NO_OBJECT.format("string")),
        (200, JSON, b"[]", NO_OBJECT.format("array")),
        (200, ";;;", b"{}", "Internal error occurred: mime: no media type"),
        (400, JSON, b"bad", "the server rejected our request for an unknown reason"),
        (401, JSON, b"no", "the server has asked for the client to provide credentials"),
        (403, JSON, b"no", "unknown"),
        (403, "text/plain", b" no\n", "no"),
        (404, JSON, b"nf", "the server could not find the requested resource"),
        (406, JSON, b"x", "the server was unable to respond with a content type that the client supports"),
        (409, JSON, b"x", "the server reported a conflict"),
        (410, JSON, b"x", "the server responded with the status code 410 but did not return more information"),
        (415, JSON, b"x", "unknown"),
        (422, JSON, b"x", "the server rejected our request due to an error in our request"),
        (500, JSON, b"boom", 'an error on the server ("unknown") has prevented the request from succeeding'),
        (502, "text/html", b"a\nb", 'an error on the server ("a\\nb") has prevented the request from succeeding'),
        (503, JSON, b"", "the server is currently unable to handle the request"),
        (500, JSON, json.dumps(STATUS).encode(), "odd"),
    ],
)
def test_refusals(code, media, body, message):
    with pytest.raises(HookError) as caught:
        hook_answer.decoded(code, media, body)
    assert str(caught.value) == message


def test_yaml_is_as_good():
    assert hook_answer.decoded(201, "application/yaml", b"kind: AdmissionReview\n") == {"kind": "AdmissionReview"}


def test_what_metrics_count():
    def code(*answer):
        with pytest.raises(HookError) as caught:
            hook_answer.decoded(*answer)
        return caught.value.code

    assert code(500, JSON, json.dumps(STATUS).encode()) == 503
    assert code(404, JSON, b"") == 404
    assert code(200, JSON, b"[]") == 503


@pytest.mark.parametrize(("given", "asked"), [("", "/"), ("a/b/", "/a/b"), ("//a//b", "/a/b"), ("/a b//", "/a%20b")])
def test_paths_are_tidied(given, asked):
    assert _path(given) == asked


def test_whose_credentials():
    users = [{"name": name, "user": {"token": name}} for name in ("a.b:8443", "*.b:8443", "c.d", "*")]
    known = Credentials({"users": users})

    def token(host, port):
        return known.user(host, port).get("token")

    assert token("a.b", 8443) == "a.b:8443"
    assert token("x.b", 8443) == "*.b:8443"
    assert token("c.d", 443) == "c.d"
    assert token("c.d", 8443) == "*"


def test_the_current_context_is_for_all_others():
    kubeconfig = {
        "users": [{"name": "u", "user": {"username": "u", "password": "p"}}],
        "contexts": [{"name": "c", "context": {"user": "u"}}],
        "current-context": "c",
    }
    assert headers(Credentials(kubeconfig).user("any", 443)) == {"Authorization": "Basic dTpw"}


def test_configurations_that_cannot_be_used(tmp_path):
    config = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration"}
    assert configured(config).user("any", 443) == {}
    with pytest.raises(BadCredentials, match="must be an absolute file path"):
        configured({**config, "kubeConfigFile": "here"})
    with pytest.raises(BadCredentials):
        configured({**config, "kubeConfigFile": str(tmp_path / "absent")})
    with pytest.raises(BadCredentials, match="is registered"):
        configured({**config, "kind": "Other"})
