// Drives dockerode through the endpoint at the unix socket that is the argument. Needs an image busybox, and NODE_PATH to
// find dockerode.
'use strict';
const assert = require('assert');
const { PassThrough } = require('stream');
const { pipeline } = require('stream/promises');
const Docker = require('dockerode');

const docker = new Docker({ socketPath: process.argv[2] });

// text collects a stream.
async function text(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString();
}

// split takes the frames of a raw stream apart; the results come when it has ended.
function split(stream) {
  const out = new PassThrough(), err = new PassThrough();
  docker.modem.demuxStream(stream, out, err);
  stream.on('end', () => { out.end(); err.end(); });
  return Promise.all([text(out), text(err)]);
}

// follow waits for a progress stream's end and fails with what it tells.
const follow = (stream) => new Promise((done, fail) => docker.modem.followProgress(stream, (e, lines) => (e ? fail(e) : done(lines))));

const input = { OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true };

const checks = {
  async 'ping, version and info'() {
    assert.equal((await docker.ping()).toString(), 'OK');
    assert.match((await docker.version()).ApiVersion, /^1\.\d+$/);
    assert.ok((await docker.info()).NCPU > 0);
  },
  async 'attach with input, both outputs and the exit code'() {
    const c = await docker.createContainer({ Image: 'busybox', Cmd: ['sh', '-c', 'read x; echo got $x; read y; echo got $y >&2; exit 3'], ...input });
    const stream = await c.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const outputs = split(stream);
    await c.start();
    stream.write('one\n');
    stream.write('two\n');
    assert.equal((await c.wait()).StatusCode, 3);
    assert.deepEqual(await outputs, ['got one\n', 'got two\n']);
    await c.remove();
  },
  async 'the options of an attach are no input'() {
    for (let i = 0; i < 8; i++) {
      const c = await docker.createContainer({ Image: 'busybox', Cmd: ['wc', '-c'], ...input });
      const stream = await c.attach({ stream: true, stdin: true, stdout: true, hijack: true });
      const outputs = split(stream);
      await c.start();
      stream.end(Buffer.alloc(1 << 20));
      assert.deepEqual(await outputs, [`${1 << 20}\n`, '']);
      await c.remove({ force: true });
    }
  },
  async 'exec, fifty times'() {
    const c = await docker.createContainer({ Image: 'busybox', Cmd: ['sleep', '1000'] });
    await c.start();
    for (let i = 0; i < 50; i++) {
      const exec = await c.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
      const stream = await exec.start({ hijack: true, stdin: true });
      const outputs = split(stream);
      stream.end(`round ${i}`);
      assert.deepEqual(await outputs, [`round ${i}`, '']);
      assert.equal((await exec.inspect()).ExitCode, 0);
    }
    await c.remove({ force: true });
  },
  async 'logs, top, stats and archives'() {
    const c = await docker.createContainer({ Image: 'busybox', Cmd: ['sh', '-c', 'echo said; exec sleep 1000'], Tty: true });
    await c.start();
    const lines = await c.logs({ follow: true, stdout: true });
    const [first] = await new Promise((done) => lines.once('data', (d) => done([d.toString()])));
    lines.destroy();
    assert.equal(first, 'said\r\n');
    assert.ok((await c.top()).Processes.length > 0);
    assert.ok((await c.stats({ stream: false })).memory_stats.usage > 0);
    assert.match(await text(await c.getArchive({ path: '/etc/passwd' })), /root:x:0:0/);
    await c.remove({ force: true });
  },
  async 'build, tag and remove an image'() {
    const tar = new PassThrough();
    const pack = require('tar-fs').pack(process.argv[3]);
    const stream = docker.buildImage(tar, { t: 'dockerode:1' });
    await pipeline(pack, tar);
    await follow(await stream);
    const image = docker.getImage('dockerode:1');
    const id = (await image.inspect()).Id;
    await image.tag({ repo: 'dockerode', tag: '2' });
    assert.equal((await docker.getImage('dockerode:2').inspect()).Id, id);
    await image.remove();
    await docker.getImage('dockerode:2').remove();
    await assert.rejects(image.inspect(), { statusCode: 404 });
  },
  async 'nodes'() {
    const find = async () => (await docker.listNodes({ filters: { name: ['host2'] } }))[0];
    let n = await find();
    assert.equal(n.Description.Hostname, 'host2');
    assert.equal((await docker.getNode(n.ID).inspect()).Status.State, 'ready');
    await docker.getNode(n.ID).update({ version: n.Version.Index, ...n.Spec, Labels: { by: 'dockerode' } });
    n = await find();
    assert.deepEqual(n.Spec.Labels, { by: 'dockerode' });
    await docker.getNode(n.ID).update({ version: n.Version.Index, ...n.Spec, Labels: {} });
    await assert.rejects(docker.getNode('nobody').inspect(), { statusCode: 404 });
  },
  async 'run'() {
    const out = new PassThrough();
    const [end, c] = await docker.run('busybox', ['sh', '-c', 'echo out; exit 4'], out);
    assert.equal(end.StatusCode, 4);
    await c.remove();
  },
  async 'networks, volumes and events'() {
    const since = Math.floor(Date.now() / 1000) - 1;
    const network = await docker.createNetwork({ Name: 'dockerode', CheckDuplicate: true });
    const volume = await docker.createVolume({ Name: 'dockerode' });
    await assert.rejects(docker.createNetwork({ Name: 'dockerode', CheckDuplicate: true }), { statusCode: 409 });
    await volume.remove();
    await network.remove();
    const events = await text(await docker.getEvents({ since, until: since + 3, filters: { type: ['network'], network: ['dockerode'] } }));
    assert.deepEqual(events.trim().split('\n').map((l) => JSON.parse(l).Action), ['create', 'destroy']);
  },
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log('ok', name);
  }
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
