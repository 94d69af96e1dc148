// keeps a case's progress current: fetches the same page again while it is in progress and swaps its live part.
// without scripts the page has a refresh link instead.
const region = () => document.getElementById('live');
async function turn() {
  const now = region();
  if (!now || now.dataset.live !== 'open') return;
  try {
    const answer = await fetch(location.href, { headers: { 'x-live': '1' } });
    // signed out meanwhile: what is shown is nobody's any more, and is asked for no further
    if (answer.status === 401) return location.reload();
    const text = await answer.text();
    const next = new DOMParser().parseFromString(text, 'text/html').getElementById('live');
    if (next && next.innerHTML !== now.innerHTML && !now.contains(document.activeElement)) {
      const lost = document.activeElement === document.body;
      now.replaceWith(document.importNode(next, true));
      // what is to be done next is under the fingers of whoever does not use a mouse
      if (lost) region().querySelector('[autofocus]')?.focus();
    }
    document.body.classList.remove('offline');
  } catch {
    document.body.classList.add('offline');
  }
  setTimeout(turn, 800);
}
setTimeout(turn, 500);
