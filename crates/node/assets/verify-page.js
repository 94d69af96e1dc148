// verifies a chosen receipt in the browser, offline; the form goes to the node only where this script does not run.
import { verifyReceipt } from '/assets/verify.js';
const form = document.getElementById('verify');
const result = document.getElementById('result');
const genesis = JSON.parse(document.getElementById('genesis').textContent);
form.addEventListener('submit', async (event) => {
  const file = form.elements.receipt.files[0];
  if (!file) return;
  event.preventDefault();
  const outcome = await verifyReceipt(new Uint8Array(await file.arrayBuffer()), genesis);
  result.replaceChildren();
  const title = document.createElement('p');
  title.className = outcome.valid ? 'valid' : 'invalid';
  title.textContent = outcome.valid ? result.dataset.valid : `${result.dataset.invalid}: ${outcome.reason}`;
  result.append(title);
  if (outcome.valid) {
    const list = document.createElement('dl');
    for (const [name, value] of Object.entries(outcome.facts)) {
      const [dt, dd] = [document.createElement('dt'), document.createElement('dd')];
      dt.textContent = name;
      dd.textContent = Array.isArray(value) ? value.join(', ') : String(value);
      list.append(dt, dd);
    }
    result.append(list);
  }
  result.hidden = false;
  result.focus();
});
