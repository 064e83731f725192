'use strict';
// Keeps the form in the address, its command line up to date, and its mistakes at their fields. The server does
// the same for a page without this.

(() => {
  const form = document.getElementById('controls');
  if (!form) return;
  const command = document.getElementById('command');
  const instead = document.getElementById('no-command');

  // What is wrong with a field, or that nothing is any more.
  const mark = (name, mistake) => {
    const line = document.getElementById(`${name}-hint`);
    if (!line) return;
    line.textContent = mistake ?? line.dataset.hint ?? '';
    if (name === 'strategy') {
      line.hidden = !mistake;
      return;
    }
    line.className = mistake ? 'error' : 'hint';
    const field = document.getElementById(`field-${name}`);
    if (mistake) field?.setAttribute('aria-invalid', 'true'); else field?.removeAttribute('aria-invalid');
  };

  const isMarked = (name) => name === 'strategy'
    ? !document.getElementById('strategy-hint').hidden
    : document.getElementById(`field-${name}`)?.hasAttribute('aria-invalid');

  const query = () => {
    const all = new URLSearchParams(new FormData(form));
    // The menu is not a part of the form.
    for (const name of ['fault-what', 'fault-at', 'fault-size', 'fault-unit']) all.delete(name);
    return all;
  };

  let latest = 0;
  const leftSince = new Set();
  // A mistake is shown once its field is left, and goes as soon as it is mended: nobody is told of half a word.
  const follow = async (left) => {
    const now = query();
    history.replaceState(null, '', `${form.dataset.address ?? ''}?${now}`);
    const mine = ++latest;
    if (left) leftSince.add(left);
    try {
      const answer = await fetch(`${form.dataset.command}?${now}`);
      const text = await answer.text();
      if (mine !== latest || !answer.ok) return;
      if (!answer.headers.get('content-type').startsWith('application/json')) {
        command.textContent = text;
        return;
      }
      const said = JSON.parse(text);
      command.textContent = said.command ?? '';
      command.hidden = said.command === null;
      instead.hidden = said.command !== null;
      const names = [...form.querySelectorAll('[id$="-hint"]')].map((line) => line.id.slice(0, -5));
      for (const name of names) {
        const mistake = said.mistakes[name];
        if (!mistake || isMarked(name) || leftSince.has(name)) mark(name, mistake);
      }
      leftSince.clear();
    } catch { /* The line about the connection says it. */ }
  };
  form.addEventListener('input', (event) => { if (!event.target.closest('.fault-menu')) follow(null); });
  form.addEventListener('change', (event) => { if (!event.target.closest('.fault-menu')) follow(event.target.name); });

  // The menu adds to the text of the faults, which is what counts.
  const add = document.getElementById('add-fault');
  form.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !event.target.matches('.fault-menu input, .fault-menu select')) return;
    event.preventDefault();
    add.click();
  });
  add?.addEventListener('click', async (event) => {
    event.preventDefault();
    const message = document.getElementById('fault-mistake');
    try {
      const answer = await (await fetch(`/fault?${new URLSearchParams(new FormData(form))}`)).json();
      message.hidden = !answer.mistake;
      message.textContent = answer.mistake ?? '';
      if (!answer.fault) return;
      const field = document.getElementById('field-faults');
      field.value = [field.value.trim(), answer.fault].filter(Boolean).join(',');
      follow('faults');
    } catch { /* As above. */ }
  });
})();
