"""What a conversion webhook may answer, and what is said of the rest: upstream's words (v1.36.2)."""

import pytest

from berg.apiserver.crd import conversion
from berg.machinery.status import ApiError

META = {"name": "t", "namespace": "n", "uid": "u", "labels": {"a": "b"}, "generation": 3}
OLD = {"apiVersion": "e.com/v1", "kind": "Conv", "metadata": META, "spec": {"host": "h"}}
NEW = {"apiVersion": "e.com/v2", "kind": "Conv", "metadata": META, "spec": {"hostname": "h"}}
REVIEW = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}
GOOD = {"uid": "1", "result": {"status": "Success"}, "convertedObjects": [NEW]}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (REVIEW, "no response provided"),
        (
            {"response": GOOD},
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=",
        ),
        (
            {**REVIEW, "kind": "Other"},
            'no kind "Other" is registered for version "apiextensions.k8s.io/v1" in scheme '
            '"k8s.io/apiserver/pkg/util/webhook/client.go:71"',
        ),
        (
            {**REVIEW, "apiVersion": "apiextensions.k8s.io/v1beta1"},
            "converting (v1beta1.ConversionReview) to (v1.ConversionReview): unknown conversion",
        ),
        ({**REVIEW, "response": {**GOOD, "uid": "zz"}}, 'expected response.uid="1", got "zz"'),
        ({**REVIEW, "response": {**GOOD, "result": {"status": "Failed", "message": "my reason"}}}, "my reason"),
        (
            {**REVIEW, "response": {**GOOD, "result": {"status": "Failed"}}},
            "response.result.status was 'Failed', not 'Success'",
        ),
        ({**REVIEW, "response": {"uid": "1"}}, "response.result.status was '', not 'Success'"),
    ],
)
def test_answers_that_are_none(answer, fault):
    with pytest.raises(ValueError) as e:
        conversion._answered(answer, "v1", "1")
    assert str(e.value) == fault


def test_an_answer():
    assert conversion._answered({**REVIEW, "response": GOOD}, "v1", "1") == [NEW]


def checked(change, several=""):
    new = {**NEW, **change}
    for key, value in change.items():
        if value is None:
            del new[key]
    try:
        return conversion._checked("webhook", 0, OLD, new, "e.com/v2", several)
    except ApiError as e:
        assert (e.code, e.reason) == (500, "")
        return e.message


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"apiVersion": "e.com/v9"}, "object at index 0: invalid groupVersion (expected e.com/v2, received e.com/v9)"),
        ({"kind": "Other"}, "object at index 0: invalid kind (expected Conv, received Other)"),
        ({"metadata": {**META, "name": "x"}}, "object: must have the same name: t != x"),
        ({"metadata": {**META, "namespace": "x"}}, "object: must have the same namespace: n != x"),
        ({"metadata": {**META, "uid": "x"}}, "object: must have the same UID: u != x"),
        ({"metadata": None}, "object: must have the same name: t != "),
        (
            {"metadata": {**META, "labels": {"a": 1}}},
            "metadata: metadata.labels[a] must be a string, but is int64 in converted object",
        ),
        (
            {"metadata": {**META, "labels": "x"}},
            "metadata: invalid metadata.labels of type string in converted object",
        ),
    ],
)
def test_objects_that_are_not_taken(change, fault):
    assert checked(change) == f"webhook returned invalid {fault}"


def test_of_many_it_is_told_which():
    assert checked({"kind": "X"}, "List") == (
        "webhook returned invalid converted object at index 0: invalid kind (expected Conv, received X)"
    )


def test_of_metadata_only_labels_and_annotations_are_taken():
    given = {**META, "labels": {"x": "y"}, "annotations": {"c": "d"}, "generation": 99, "finalizers": ["a/b"]}
    assert checked({"metadata": given})["metadata"] == {**META, "labels": {"x": "y"}, "annotations": {"c": "d"}}
    assert "labels" not in checked({"metadata": {**META, "labels": None}})["metadata"]
