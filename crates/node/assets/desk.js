// a clerk's application form: the first field has the focus, and the Enter with which a scanner ends what it read leads to the next
// field; after the last one it sends the form. Shift and Enter sends it at once.
const form = document.getElementById('apply');
const fields = () => [...form.querySelectorAll('input:not([type="hidden"]), select')].filter(f => f.offsetParent !== null);
(form.querySelector('[aria-invalid]') ?? fields()[0])?.focus();
form.addEventListener('keydown', event => {
  if (event.key !== 'Enter' || event.shiftKey || event.target.tagName === 'BUTTON' || event.isComposing) return;
  const all = fields();
  if (!all.includes(event.target)) return;
  const next = all[all.indexOf(event.target) + 1];
  if (!next) return;
  event.preventDefault();
  next.focus();
});
