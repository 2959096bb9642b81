"""Pod networks by CNI plugins: programs in /opt/cni/bin, called as a configuration in /etc/cni/net.d says.

ADD runs the list's plugins in order, each with the result of the one before; DEL runs them backwards with the last
result, which is therefore kept on disk (`DIR/results/NETWORK-SANDBOX-INTERFACE`). CHECK, STATUS and GC are called where
the configuration's version has them.

The loopback is up already (the sandbox sees to it), so the loopback plugin is not called.

Source: CNI specification 1.1, sections 2 to 5; conventions for runtimeConfig and CNI_ARGS: CONVENTIONS.md.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from berg.network.cni.configuration import BadConfiguration, NetworkConfiguration, first
from berg.runtime.network import PodNetworkError, PodNetworkRequest, PodNetworkResult

INTERFACE = "eth0"
TIMEOUT_S = 220.0
"""A little less than the kubelet waits for a sandbox."""

# Plugins answer these when they cannot take pods right now (STATUS).
_NOT_AVAILABLE = frozenset((50, 51))


class PluginError(Exception):
    def __init__(self, plugin: str, message: str, code: int = 0) -> None:
        super().__init__(f'plugin type="{plugin}" failed: {message}')
        self.code = code


class CNINetwork:
    """A body of `berg.runtime.network.PodNetwork`."""

    def __init__(
        self,
        directory: str,
        *,
        configurations: str = "/etc/cni/net.d",
        programs: Sequence[str] = ("/opt/cni/bin", "/usr/lib/cni"),
    ) -> None:
        self._results = os.path.join(directory, "results")
        self._configurations = configurations
        self._programs = tuple(programs)

    async def start(self) -> None:
        await asyncio.to_thread(os.makedirs, self._results, exist_ok=True)

    async def stop(self) -> None:
        """Pods stay connected."""

    async def setup(self, request: PodNetworkRequest) -> PodNetworkResult:
        network = self._network()
        result: Any = None
        try:
            for plugin in network.plugins:
                result = await self._run("ADD", network, plugin, request, result)
            addresses = [entry["address"].partition("/")[0] for entry in (result or {}).get("ips") or ()]
            if not addresses:
                raise PluginError(network.plugins[-1]["type"], "the result has no IP address")
            await asyncio.to_thread(self._keep, network, request, result)
        except (PluginError, KeyError, TypeError, AttributeError) as error:
            try:
                await self._delete(network, request, result)
            except PluginError:
                pass  # the first failure is the one to tell of
            text = f'failed to setup network for sandbox "{request.sandbox_id}": {error}'
            raise PodNetworkError(text) from error
        nameservers = (result.get("dns") or {}).get("nameservers") or ()
        return PodNetworkResult(ips=addresses, interface=INTERFACE, nameservers=nameservers)

    async def teardown(self, request: PodNetworkRequest) -> None:
        kept = await asyncio.to_thread(self._kept, request.sandbox_id)
        if kept is None:
            try:
                network, result = self._network(), None
            except PodNetworkError:
                return  # never set up by us, and there is nobody to ask
        else:
            network, result = kept
        try:
            await self._delete(network, request, result)
        except PluginError as error:
            text = f'failed to destroy network for sandbox "{request.sandbox_id}": {error}'
            raise PodNetworkError(text) from error
        await asyncio.to_thread(self._forget, request.sandbox_id)

    async def check(self, request: PodNetworkRequest) -> None:
        """Raises PodNetworkError when the pod's network is not as it was made."""
        kept = await asyncio.to_thread(self._kept, request.sandbox_id)
        if kept is None:
            raise PodNetworkError(f'sandbox "{request.sandbox_id}" was never connected')
        network, result = kept
        if network.disable_check or not network.at_least(0, 4):
            return
        try:
            for plugin in network.plugins:
                await self._run("CHECK", network, plugin, request, result)
        except PluginError as error:
            raise PodNetworkError(str(error)) from error

    async def status(self) -> str | None:
        try:
            network = self._network()
            if network.at_least(1, 1):
                for plugin in network.plugins:
                    await self._run("STATUS", network, plugin, None, None)
        except PodNetworkError as error:
            return str(error)
        except PluginError as error:
            return str(error) if error.code in _NOT_AVAILABLE or error.code == 0 else None
        return None

    async def gc(self, keep: Collection[str]) -> None:
        """Disconnects whatever was connected for a sandbox that is not among these; plugins that know GC are told."""
        for sandbox in await asyncio.to_thread(self._sandboxes):
            if sandbox not in keep:
                await self.teardown(PodNetworkRequest(sandbox, "", "", "", ""))
        try:
            network = self._network()
        except PodNetworkError:
            return
        if network.disable_gc or not network.at_least(1, 1):
            return
        valid = [{"containerID": sandbox, "ifname": INTERFACE} for sandbox in keep]
        for plugin in network.plugins:
            try:
                await self._run("GC", network, plugin, None, None, {"cni.dev/valid-attachments": valid})
            except PluginError:
                continue  # an older plugin does not know GC: the specification has everybody go on

    # One call of one plugin

    async def _delete(self, network: NetworkConfiguration, request: PodNetworkRequest, result: Any) -> None:
        for plugin in reversed(network.plugins):
            await self._run("DEL", network, plugin, request, result if network.at_least(0, 4) else None)

    async def _run(
        self,
        command: str,
        network: NetworkConfiguration,
        plugin: Mapping[str, Any],
        request: PodNetworkRequest | None,
        previous: Any,
        extra: Mapping[str, Any] | None = None,
    ) -> Any:
        kind = plugin["type"]
        config = {**plugin, "name": network.name, "cniVersion": network.version, **(extra or {})}
        if request is not None and (given := _runtime_config(plugin, request)):
            config["runtimeConfig"] = given
        config.pop("capabilities", None)
        if previous is not None:
            config["prevResult"] = previous
        try:
            process = await asyncio.create_subprocess_exec(
                self._program(kind),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment(command, request),
            )
        except OSError as error:
            raise PluginError(kind, str(error)) from error
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, complaint = await process.communicate(orjson.dumps(config))
        except TimeoutError:
            process.kill()
            await process.wait()
            raise PluginError(kind, f"{command} took longer than {TIMEOUT_S:.0f} s") from None
        return _answer(kind, command, process.returncode or 0, output, complaint)

    def _environment(self, command: str, request: PodNetworkRequest | None) -> dict[str, str]:
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "CNI_COMMAND": command,
            "CNI_PATH": ":".join(self._programs),
            "CNI_IFNAME": INTERFACE,
        }
        if request is not None:
            arguments = {
                "IgnoreUnknown": "1",
                "K8S_POD_NAMESPACE": request.namespace,
                "K8S_POD_NAME": request.name,
                "K8S_POD_INFRA_CONTAINER_ID": request.sandbox_id,
                "K8S_POD_UID": request.uid,
            }
            environment |= {
                "CNI_CONTAINERID": request.sandbox_id,
                # A pod whose namespace is gone still has addresses to give back: then the plugin gets no namespace.
                "CNI_NETNS": request.netns_path if os.path.exists(request.netns_path) else "",
                "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
            }
        return environment

    def _program(self, kind: str) -> str:
        for directory in self._programs:
            path = os.path.join(directory, kind)
            if os.access(path, os.X_OK):
                return path
        raise PluginError(kind, f'failed to find plugin "{kind}" in path [{" ".join(self._programs)}]')

    def _network(self) -> NetworkConfiguration:
        try:
            return first(self._configurations)
        except BadConfiguration as error:
            raise PodNetworkError(str(error)) from error

    # What is kept between ADD and DEL: the result and the configuration it was made with

    def _path(self, network: str, sandbox: str) -> str:
        return os.path.join(self._results, f"{network}-{sandbox}-{INTERFACE}")

    def _keep(self, network: NetworkConfiguration, request: PodNetworkRequest, result: Any) -> None:
        os.makedirs(self._results, exist_ok=True)
        kept = {
            "kind": "cniCacheV1",
            "containerId": request.sandbox_id,
            "ifName": INTERFACE,
            "networkName": network.name,
            "config": {"name": network.name, "cniVersion": network.version, "plugins": list(network.plugins)},
            "result": result,
        }
        path = self._path(network.name, request.sandbox_id)
        with open(path + ".new", "wb") as file:
            file.write(orjson.dumps(kept))
        os.replace(path + ".new", path)

    def _kept(self, sandbox: str) -> tuple[NetworkConfiguration, Any] | None:
        from berg.network.cni.configuration import parse

        for name in self._files():
            if f"-{sandbox}-{INTERFACE}" in name:
                try:
                    with open(os.path.join(self._results, name), "rb") as file:
                        kept = orjson.loads(file.read())
                    return parse(kept["config"], name), kept["result"]
                except (OSError, ValueError, KeyError, BadConfiguration):
                    continue
        return None

    def _forget(self, sandbox: str) -> None:
        for name in self._files():
            if f"-{sandbox}-{INTERFACE}" in name:
                os.unlink(os.path.join(self._results, name))

    def _sandboxes(self) -> list[str]:
        return [name.removesuffix(f"-{INTERFACE}").rpartition("-")[2] for name in self._files()]

    def _files(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._results) if name.endswith(f"-{INTERFACE}")]
        except FileNotFoundError:
            return []


def _runtime_config(plugin: Mapping[str, Any], request: PodNetworkRequest) -> dict[str, Any]:
    """What the plugin says it can use of what we know."""
    wanted = {name for name, yes in (plugin.get("capabilities") or {}).items() if yes}
    known: dict[str, Any] = {
        "portMappings": [
            {
                "hostPort": mapping.host_port,
                "containerPort": mapping.container_port,
                "protocol": mapping.protocol,
                "hostIP": mapping.host_ip,
            }
            for mapping in request.port_mappings
        ],
        "bandwidth": _bandwidth(request.annotations),
        "cgroupPath": request.cgroup_parent,
        "io.kubernetes.cri.pod-annotations": dict(request.annotations),
    }
    return {name: value for name, value in known.items() if name in wanted and value}


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    result: dict[str, int] = {}
    for direction in ("ingress", "egress"):
        rate = _quantity(annotations.get(f"kubernetes.io/{direction}-bandwidth", ""))
        if rate:
            result |= {f"{direction}Rate": rate, f"{direction}Burst": (1 << 31) - 1}
    return result


def _quantity(text: str) -> int:
    """Bits per second in Kubernetes' notation of quantities; 0 for what is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?", text)
    if match is None:
        return 0
    powers = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return int(float(match[1]) * powers.get(match[2] or "", 1))


def _answer(kind: str, command: str, code: int, output: bytes, complaint: bytes) -> Any:
    """The plugin's result; raises PluginError."""
    try:
        answer = orjson.loads(output) if output.strip() else None
    except ValueError:
        answer = None
        if code == 0 and command == "ADD":
            raise PluginError(kind, f"its answer is not JSON: {output[:200]!r}") from None
    if code == 0:
        return answer
    if isinstance(answer, dict) and answer.get("msg"):
        details = f"; {answer['details']}" if answer.get("details") else ""
        raise PluginError(kind, f"{answer['msg']}{details}", int(answer.get("code") or 0))
    text = complaint.decode(errors="replace").strip() or f"it ended with {code} and said nothing"
    raise PluginError(kind, text)
