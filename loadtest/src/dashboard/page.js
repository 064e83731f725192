'use strict';
// Brings a page up to date. Everything that it shows is drawn by the server, which also works without this.

(() => {
  const FOCUSABLE = 'a, button, summary, input, select, [tabindex]';

  // Exchanges a part and keeps what the reader has done to it: what is unfolded, scrolled and focused.
  const exchange = (id, hash, html) => {
    const part = document.getElementById(id);
    if (!part || part.dataset.hash === hash) return;
    const all = (selector) => [...part.querySelectorAll(selector)];
    const open = all('details[open]').map((details) => details.id);
    const scrolled = all('.scroll').map((region) => [region.scrollTop, region.scrollLeft]);
    const focused = all(FOCUSABLE).indexOf(document.activeElement);
    part.dataset.hash = hash;
    part.innerHTML = html;
    for (const name of open) {
      const details = name && document.getElementById(name);
      if (details) details.open = true;
    }
    all('.scroll').forEach((region, i) => {
      if (scrolled[i]) [region.scrollTop, region.scrollLeft] = scrolled[i];
    });
    if (focused >= 0) all(FOCUSABLE)[focused]?.focus({ preventScroll: true });
  };

  const live = document.querySelector('[data-events]');
  if (live) {
    const lost = document.getElementById('connection');
    const events = new EventSource(live.dataset.events);
    // Drawn once a frame, and only the latest: a page that draws slower than news come does not fall behind.
    const latest = new Map();
    const draw = () => {
      const parts = [...latest];
      latest.clear();
      for (const [id, [hash, html]] of parts) exchange(id, hash, html);
    };
    events.onmessage = (message) => {
      lost.hidden = true;
      if (latest.size === 0) {
        if (document.hidden) setTimeout(draw, 250); else requestAnimationFrame(draw);
      }
      for (const [id, hash, html] of JSON.parse(message.data)) latest.set(id, [hash, html]);
    };
    events.onopen = () => { lost.hidden = true; };
    events.onerror = () => { lost.hidden = false; };
    // A page that is left lets go at once.
    addEventListener('pagehide', () => events.close());
    addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
  }
})();
