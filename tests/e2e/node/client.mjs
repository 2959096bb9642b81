// What an application does with @kubernetes/client-node: typed and untyped objects, apply, informer, watch, exec,
// logs, port-forward, and a leader elected on a Lease. Ends with 0 when everything was as it should be.
import assert from 'node:assert/strict';
import net from 'node:net';
import { createRequire } from 'node:module';
import { Writable, PassThrough } from 'node:stream';
import { pathToFileURL } from 'node:url';

const [modules, namespace] = process.argv.slice(2);
const main = createRequire(modules + '/').resolve('@kubernetes/client-node');
const k8s = await import(pathToFileURL(main));

const kc = new k8s.KubeConfig();
kc.loadFromDefault();
const core = kc.makeApiClient(k8s.CoreV1Api);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function until(what, condition) {
    for (let i = 0; i < 300; i++) {
        if (await condition()) return;
        await sleep(100);
    }
    assert.fail(`not in time: ${what}`);
}
function collector() {
    const stream = new Writable({ write(chunk, _, done) { stream.text += chunk; done(); } });
    stream.text = '';
    return stream;
}

async function informer() {
    const seen = [];
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const made = k8s.makeInformer(
        kc, path, () => core.listNamespacedConfigMap({ namespace, labelSelector: 'of=node' }), 'of=node');
    for (const verb of ['add', 'update', 'delete']) made.on(verb, (o) => seen.push([verb, o.metadata.name, o.data.n]));
    made.on('error', (e) => seen.push(['error', String(e)]));
    await made.start();
    const metadata = { name: 'i', labels: { of: 'node' } };
    await core.createNamespacedConfigMap({ namespace, body: { metadata, data: { n: '1' } } });
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'unseen' } } });
    await core.patchNamespacedConfigMap(
        { namespace, name: 'i', body: { data: { n: '2' } } },
        k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch));
    await until('an update', () => seen.length >= 2);
    assert.equal(made.get('i', namespace).data.n, '2');
    await core.deleteNamespacedConfigMap({ namespace, name: 'i' });
    await until('a deletion', () => seen.length >= 3);
    assert.deepEqual(seen, [['add', 'i', '1'], ['update', 'i', '2'], ['delete', 'i', '2']]);
    await made.stop();
}

async function apply() {
    const objects = k8s.KubernetesObjectApi.makeApiClient(kc);
    const config = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a', namespace }, data: { a: '1', b: '1' } };
    const put = (o, manager) =>
        objects.patch(o, undefined, undefined, manager, false, k8s.PatchStrategy.ServerSideApply);
    await put(config, 'node');
    await put({ ...config, data: { other: '1' } }, 'other');
    const { b: _, ...left } = config.data;
    const now = await put({ ...config, data: left }, 'node');
    assert.deepEqual(now.data, { a: '1', other: '1' });
    await assert.rejects(put({ ...config, data: { a: '9' } }, 'other'), (e) => e.code === 409);
    const read = await objects.read(config);
    assert.deepEqual(read.metadata.managedFields.map((m) => m.manager).sort(), ['node', 'other']);
}

async function pod() {
    const spec = {
        terminationGracePeriodSeconds: 0,
        containers: [{ name: 'web', image: 'registry.k8s.io/e2e-test-images/nginx:1.0', ports: [{ containerPort: 80 }],
                       readinessProbe: { httpGet: { port: 80 }, periodSeconds: 1 } }],
    };
    const phases = [];
    const watch = new k8s.Watch(kc);
    const ended = new Promise((done) => {
        watch.watch(`/api/v1/namespaces/${namespace}/pods`, { fieldSelector: 'metadata.name=web', timeoutSeconds: 60 },
            (type, o) => { phases.push(`${type} ${o.status.phase}`); if (type === 'DELETED') done(); }, () => done());
    });
    await core.createNamespacedPod({ namespace, body: { metadata: { name: 'web' }, spec } });
    await until('a ready pod', async () =>
        (await core.readNamespacedPodStatus({ name: 'web', namespace })).status.conditions
            ?.some((c) => c.type === 'Ready' && c.status === 'True'));

    const exec = new k8s.Exec(kc);
    const run = (command, stdin = null, tty = false) => new Promise((done, failed) => {
        const out = collector(), err = collector();
        exec.exec(namespace, 'web', 'web', command, out, err, stdin, tty,
            (status) => setTimeout(() => done([out.text, err.text, status]), 50)).catch(failed);
    });
    const [out, err, status] = await run(['sh', '-c', 'echo out; echo err >&2; exit 4']);
    assert.deepEqual([out, err, status.status, status.details.causes[0].message], ['out\n', 'err\n', 'Failure', '4']);
    const stdin = new PassThrough();
    stdin.end('through\n');
    assert.deepEqual((await run(['head', '-n1'], stdin)).slice(0, 1), ['through\n']);

    const forward = new k8s.PortForward(kc);
    const server = net.createServer((socket) => forward.portForward(namespace, 'web', [80], socket, null, socket));
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    const got = await (await fetch(`http://127.0.0.1:${server.address().port}/`, { headers: { connection: 'close' } })).text();
    assert.ok(got.length > 0);
    server.close();

    const log = collector();
    const following = await new k8s.Log(kc).log(namespace, 'web', 'web', log, { follow: true });
    await until('a line of the log', () => log.text.includes('\n'));
    following.abort();

    await core.deleteNamespacedPod({ name: 'web', namespace, gracePeriodSeconds: 0 });
    await ended;
    assert.equal(phases[0], 'ADDED Pending');
    assert.ok(phases.includes('MODIFIED Running') && phases.at(-1).startsWith('DELETED'), String(phases));
}

async function leader() {
    // Three want to lead; a conflict tells who was late. The one that stops is followed by another.
    const leases = kc.makeApiClient(k8s.CoordinationV1Api);
    const led = [];
    const microtime = () => new k8s.V1MicroTime();
    await leases.createNamespacedLease({ namespace, body: { metadata: { name: 'l' }, spec: {} } });
    async function contend(id) {
        for (;;) {
            const lease = await leases.readNamespacedLease({ namespace, name: 'l' });
            const { holderIdentity, renewTime } = lease.spec;
            if (holderIdentity && Date.now() - new Date(renewTime).getTime() < 1000) { await sleep(100); continue; }
            lease.spec = { holderIdentity: id, leaseDurationSeconds: 1, acquireTime: microtime(), renewTime: microtime() };
            try {
                await leases.replaceNamespacedLease({ namespace, name: 'l', body: lease });
            } catch (e) {
                assert.equal(e.code, 409);
                continue;
            }
            led.push(id);
            return;
        }
    }
    await Promise.all(['a', 'b', 'c'].map(contend));
    assert.deepEqual([...led].sort(), ['a', 'b', 'c']);
}

await Promise.all([informer(), apply(), pod(), leader()]);
const missing = await core.readNamespacedPod({ name: 'none', namespace }).catch((e) => e);
assert.equal(missing.code, 404);
console.log('all of it');
process.exit(0);
