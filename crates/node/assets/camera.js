// the camera page: asks for a challenge, says each pose, takes a frame of it, and sends all with the document's photograph.
// nothing is kept in the browser; the page works only with a camera, and every other way of identification stays open.
const form = document.getElementById('face'), say = document.getElementById('say'), video = document.getElementById('camera');
const box = video.parentElement, progress = document.getElementById('progress'), said = form.dataset;
const wait = ms => new Promise(done => setTimeout(done, ms));
const text = key => said[key] ?? key;
function tell(message, kind) { say.textContent = message; say.className = 'say ' + (kind ?? ''); }
async function frame() {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext('2d').drawImage(video, 0, 0);
  return canvas.convertToBlob({ type: 'image/jpeg', quality: 0.88 });
}
async function ask(path, body) {
  const answer = await fetch(form.action + path, { method: 'POST', body });
  if (!(answer.headers.get('content-type') ?? '').startsWith('application/json')) throw new Error(text('offline'));
  const said = await answer.json();
  if (said.left !== undefined) document.getElementById('left').textContent = said.left;
  if (!answer.ok) throw new Error(said.message);
  return said;
}
async function go() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: 'user' } });
  } catch { throw new Error(text('no_camera')); }
  try {
    video.srcObject = stream;
    await video.play();
    box.hidden = progress.hidden = false;
    const { challenge, poses, attempts_left } = await ask('', new URLSearchParams({ csrf: form.csrf.value }));
    document.getElementById('left').textContent = attempts_left;
    const data = new FormData(form), at = [], begun = performance.now();
    for (const [i, pose] of poses.entries()) {
      tell(text(pose), 'pose');
      await wait(i === 0 ? 1200 : 2400);
      if (i === 0) at.start = performance.now();
      at.push(Math.round(performance.now() - at.start));
      data.append('frame', await frame(), `${i}.jpg`);
      progress.value = i + 1;
    }
    data.set('at', at.join(','));
    tell(text('sending'));
    const { to } = await ask('/' + challenge, data);
    tell(text('passed'), 'done');
    await wait(600);
    location.assign(to);
  } finally {
    stream.getTracks().forEach(track => track.stop());
    video.srcObject = null;
    box.hidden = progress.hidden = true;
    progress.value = 0;
  }
}
form.addEventListener('submit', async event => {
  event.preventDefault();
  const button = form.querySelector('button');
  button.disabled = true;
  try { await go(); } catch (e) { tell(e instanceof TypeError ? text('offline') : e.message, 'failed'); say.scrollIntoView({ block: 'center' }); }
  button.disabled = false;
});
