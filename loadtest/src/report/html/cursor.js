'use strict';
// One moment of a run in all its charts: a line across them, and what they show then, with who has the lock.

(() => {
  const SHOWN_MS = (ms) => `${(ms / 1000).toFixed(ms < 10000 ? 3 : 2)} s`;
  // By the group of charts: the moment that it shows, and whether it stays when the pointer leaves.
  const shown = new WeakMap();
  const read = (element, name) => JSON.parse(element.dataset[name]);

  const momentsOf = (group) => {
    const element = group.querySelector('[data-moments]');
    return element ? read(element, 'moments') : [];
  };

  // The figures of the interval that a moment is in.
  const figures = (moments, ms) => (moments.find(([until]) => ms <= until) || moments[moments.length - 1])[1];

  // Who has the lock at a moment, as far as the holds that the page has say.
  const holder = (group, ms, span) => {
    const lanes = [...group.querySelectorAll('[data-holds]')].flatMap((element) => read(element, 'holds'));
    if (!lanes.length) return '';
    const name = (replica, token) => `${replica}${token === null ? '' : ` (fencing token ${token})`}`;
    const at = new Map();
    let near = null;
    for (const { replica, holds, until, silent } of lanes) {
      if (silent && ms > until) at.set(`${replica}?`, `${replica} is not known`);
      for (const [acquired, released, token] of holds) {
        // A hold that lasts is known to have lasted until its replica was heard. One ends before the next begins.
        const end = released ?? until ?? Infinity;
        const away = ms < acquired ? acquired - ms : ms < end ? 0 : Math.max(ms - end, Number.MIN_VALUE);
        if (away === 0) at.set(`${replica} ${acquired}`, name(replica, token));
        else if (away < span / 100 && (!near || away < near.away)) near = { away, words: name(replica, token) };
      }
    }
    const all = [...new Set(at.values())];
    if (all.length > 1 && ![...at.keys()].some((key) => key.endsWith('?'))) return `${all.join(' and ')} have the lock at once`;
    if (all.length) return `lock: ${all.join(', ')}`;
    if (near) return `lock: about then ${near.words}`;
    return lanes.every((lane) => lane.whole) ? 'nobody has the lock' : 'the hold of this moment was not kept';
  };

  const place = (group, ms) => {
    for (const chart of group.querySelectorAll('[data-from]')) {
      const [from, to] = [Number(chart.dataset.from), Number(chart.dataset.to)];
      const at = ms === null ? -1 : (ms - from) / (to - from);
      chart.classList.toggle('pointed', at >= 0 && at <= 1);
      chart.style.setProperty('--at', at);
    }
  };

  const show = (group, ms, stays) => {
    const moments = momentsOf(group);
    const readout = group.querySelector('.readout');
    if (!readout || !moments.length) return;
    const span = moments[moments.length - 1][0];
    const at = Math.min(Math.max(ms, 0), span);
    shown.set(group, { ms: at, stays });
    place(group, at);
    const words = [SHOWN_MS(at), ...figures(moments, at), holder(group, at, span)].filter(Boolean);
    const [slider, output] = [readout.querySelector('input'), readout.querySelector('output')];
    readout.classList.add('shows');
    output.textContent = words.join(' · ');
    slider.setAttribute('aria-valuetext', words.join(', '));
    if (document.activeElement !== slider) slider.value = Math.round((at / span) * 1000);
  };

  const hide = (group) => {
    if (!shown.delete(group)) return;
    place(group, null);
    const readout = group.querySelector('.readout');
    readout.classList.remove('shows');
    const output = readout.querySelector('output');
    output.textContent = output.dataset.hint;
  };

  // After charts were exchanged, too.
  const refresh = () => {
    for (const group of document.querySelectorAll('.evidence')) {
      const readout = group.querySelector('.readout');
      if (!readout) continue;
      const output = readout.querySelector('output');
      output.dataset.hint ??= output.textContent;
      readout.hidden = !group.querySelector('[data-moments]');
      const moment = shown.get(group);
      if (moment) show(group, moment.ms, moment.stays);
    }
  };

  document.addEventListener('pointermove', (event) => {
    const chart = event.target.closest?.('[data-from]');
    const group = event.target.closest?.('.evidence');
    if (!chart || !group) return;
    const box = chart.getBoundingClientRect();
    const left = parseFloat(getComputedStyle(chart).getPropertyValue('--left')) / 100;
    const part = ((event.clientX - box.left) / box.width - left) / (1 - left - 0.01);
    const [from, to] = [Number(chart.dataset.from), Number(chart.dataset.to)];
    show(group, from + Math.min(Math.max(part, 0), 1) * (to - from), false);
  });
  document.addEventListener('pointerout', (event) => {
    const group = event.target.closest?.('.evidence');
    if (group && !group.contains(event.relatedTarget) && !shown.get(group)?.stays) hide(group);
  });
  document.addEventListener('input', (event) => {
    const group = event.target.closest?.('.readout')?.closest('.evidence');
    const moments = group ? momentsOf(group) : [];
    if (moments.length) show(group, (event.target.value / 1000) * moments[moments.length - 1][0], true);
  });
  document.addEventListener('exchanged', refresh);
  refresh();

  // The bar says the verdict when the banner is out of sight.
  const bar = document.querySelector('.bar');
  const banner = document.getElementById('verdict') || document.querySelector('.banner, .summary');
  if (bar && banner && 'IntersectionObserver' in window) {
    bar.classList.add('waits');
    new IntersectionObserver(([seen]) => {
      bar.classList.toggle('waits', seen.isIntersecting);
    }).observe(banner);
  }
})();
