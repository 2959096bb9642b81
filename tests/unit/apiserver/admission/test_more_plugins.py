"""Plugins that are off by default: what they ask of pods."""

import json

import pytest
from aiohttp import web

from berg.apiserver.admission.chain import AdmissionChain, UnfitPlugin, UnknownPlugin
from berg.apiserver.admission.toleration_restriction import ALLOWED, DEFAULTS, covers, merged
from berg.machinery.status import ApiError

from .fakes import FakeApi, attributes, namespace, pod


def chain(name, *objects, config=None):
    plugins = AdmissionChain(FakeApi(*objects), enable=[name], config={name: config} if config else {})
    plugins.plugins = [p for p in plugins.plugins if p.name == name]
    return plugins


def annotated(**annotations):
    kind, obj = namespace()
    obj["metadata"]["annotations"] = annotations
    return kind, obj


async def test_pods_may_only_insist_on_another_node():
    term = {"topologyKey": "zone"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    with pytest.raises(ApiError) as caught:
        await chain("LimitPodHardAntiAffinityTopology").run_validating(attributes("pods", pod(affinity=affinity)))
    assert caught.value.message == (
        'pods "web" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key '
        "kubernetes.io/hostname is allowed"
    )
    term["topologyKey"] = "kubernetes.io/hostname"
    await chain("LimitPodHardAntiAffinityTopology").run_validating(attributes("pods", pod(affinity=affinity)))


A = {"key": "a", "operator": "Equal", "value": "x", "effect": "NoSchedule"}
ANY_A = {"key": "a", "operator": "Exists", "effect": "NoSchedule"}
LONG = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}


@pytest.mark.parametrize(
    ("wide", "one", "does"),
    [
        (A, A, True),
        (ANY_A, A, True),
        (A, ANY_A, False),
        ({"operator": "Exists"}, A, True),
        ({"operator": "Exists", "effect": "NoExecute"}, A, False),
        (LONG, {**LONG, "tolerationSeconds": 30}, True),
        (LONG, {**LONG, "tolerationSeconds": 90}, False),
        (LONG, {k: v for k, v in LONG.items() if k != "tolerationSeconds"}, False),
        ({**A, "value": "y"}, A, False),
    ],
)
def test_what_a_toleration_covers(wide, one, does):
    assert covers(wide, one) is does


def test_what_is_covered_is_left_out():
    assert merged([A, ANY_A, A]) == [ANY_A]
    assert merged([A, LONG]) == [A, LONG]


async def test_tolerations_of_a_namespace():
    plugins = chain("PodTolerationRestriction", annotated(**{DEFAULTS: json.dumps([A]), ALLOWED: json.dumps([ANY_A])}))
    a = attributes("pods", pod())
    await plugins.run_mutating(a)
    assert a.obj["spec"]["tolerations"] == [A]
    with pytest.raises(ApiError) as caught:
        await plugins.run_mutating(attributes("pods", pod(tolerations=[LONG])))
    assert caught.value.message == (
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"
    )


async def test_tolerations_of_the_cluster():
    plugins = chain("PodTolerationRestriction", namespace(), config={"default": [A], "whitelist": [A]})
    a = attributes("pods", pod())
    await plugins.run_mutating(a)
    assert a.obj["spec"]["tolerations"] == [A]
    with pytest.raises(ApiError, match="its cluster whitelist"):
        await plugins.run_mutating(attributes("pods", pod(tolerations=[LONG])))


@pytest.fixture
async def judge(tmp_path):
    """A server that judges images by `says`, and the configuration that names it."""
    asked, says = [], {"allowed": True}

    async def handle(request):
        review = await request.json()
        asked.append(review["spec"])
        if "code" in says:
            return web.Response(status=says["code"])
        return web.json_response({**review, "status": says})

    app = web.Application()
    app.router.add_post("/{any:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}/p"
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps({"clusters": [{"name": "c", "cluster": {"server": server}}]}))
    yield asked, says, {"imagePolicy": {"kubeConfigFile": str(file), "retryBackoff": -1}}
    await runner.cleanup()


async def test_images_are_judged_and_judgements_kept(judge):
    asked, says, config = judge
    plugins = chain("ImagePolicyWebhook", namespace(), config=config)
    says.update(allowed=False, reason="no", auditAnnotations={"k": "v"})
    for _ in range(2):
        a = attributes("pods", pod())
        with pytest.raises(ApiError) as caught:
            await plugins.run_validating(a)
        assert caught.value.message.endswith("image policy webhook backend denied one or more images: no")
        assert a.audit_annotations == {"imagepolicywebhook.image-policy.k8s.io/k": "v"}
    assert asked == [{"containers": [{"image": "nginx"}], "namespace": "ns"}]
    await plugins.close()


async def test_nobody_judges_images(judge):
    _, says, config = judge
    says["code"] = 503
    plugins = chain("ImagePolicyWebhook", namespace(), config=config)
    with pytest.raises(ApiError, match="is currently unable to handle the request"):
        await plugins.run_validating(attributes("pods", pod()))
    await plugins.close()
    config["imagePolicy"]["defaultAllow"] = True
    plugins = chain("ImagePolicyWebhook", namespace(), config=config)
    a = attributes("pods", pod())
    await plugins.run_validating(a)
    assert a.audit_annotations == {"imagepolicywebhook.image-policy.k8s.io/failed-open": "true"}
    assert a.obj["metadata"]["annotations"] == {"alpha.image-policy.k8s.io/failed-open": "true"}
    await plugins.close()


def test_configurations_that_do_not_fit(tmp_path):
    with pytest.raises(UnfitPlugin) as caught:
        chain("ImagePolicyWebhook")
    why = 'couldn\'t init admission plugin "ImagePolicyWebhook": no config specified'
    assert str(caught.value) == f"failed to initialize admission: {why}"
    with pytest.raises(UnfitPlugin, match="valid value is between 1s and 30m0s, got 4000s"):
        chain("ImagePolicyWebhook", config={"imagePolicy": {"allowTTL": 4000}})


def test_plugins_that_there_are_not():
    with pytest.raises(UnknownPlugin) as caught:
        AdmissionChain(FakeApi(), enable=["Nope", "AlwaysAdmit"], disable=["AlwaysAdmit"])
    assert str(caught.value) == (
        '[enable-admission-plugins plugin "Nope" is unknown, '
        "[AlwaysAdmit] in enable-admission-plugins and disable-admission-plugins overlapped]"
    )
