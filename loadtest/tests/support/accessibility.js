// What keeps somebody from using a page: a list of sentences, empty when nothing does.
const barriers = [];
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const name = (element) => {
  const id = element.id ? `#${element.id}` : '';
  const text = (element.textContent || '').trim().slice(0, 40);
  return `<${element.tagName.toLowerCase()}${id}> ${JSON.stringify(text)}`;
};
const visible = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
const referred = (element, attribute) =>
  (element.getAttribute(attribute) || '').split(/\s+/).filter(Boolean).map((id) => document.getElementById(id));

if (!document.documentElement.lang) barriers.push('the page has no language');
if (!document.title.trim()) barriers.push('the page has no title');
for (const landmark of ['header', 'main', 'footer']) {
  const count = all(`body > ${landmark}`).length;
  if (count !== 1) barriers.push(`${count} × ${landmark}`);
}
const headings = all('h1, h2, h3, h4, [role=heading]').filter(visible)
  .map((heading) => Number(heading.getAttribute('aria-level') || heading.tagName.slice(1)));
if (headings[0] !== 1) barriers.push(`the first heading is of level ${headings[0]}`);
headings.forEach((level, i) => {
  if (i && level > headings[i - 1] + 1) barriers.push(`a heading of level ${level} follows one of ${headings[i - 1]}`);
});

const ids = all('[id]').map((element) => element.id);
ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => barriers.push(`two elements are called ${id}`));
for (const attribute of ['aria-labelledby', 'aria-describedby']) {
  for (const element of all(`[${attribute}]`)) {
    if (referred(element, attribute).includes(null)) barriers.push(`${name(element)}: ${attribute} leads nowhere`);
  }
}
for (const link of all('a[href^="#"]')) {
  if (!document.getElementById(link.getAttribute('href').slice(1))) barriers.push(`${name(link)} leads nowhere`);
}

const label = (element) => (element.getAttribute('aria-label')
  || referred(element, 'aria-labelledby').map((other) => other?.textContent).join(' ')
  || [...(element.labels || [])].map((other) => other.textContent).join(' ')
  || (element.matches('a, button, summary') ? element.textContent : '')).trim();
for (const element of all('a, button, summary, input:not([type=hidden]), select, textarea, [role=img], [role=region]')) {
  if (!label(element)) barriers.push(`${name(element)} has no name`);
}
for (const svg of all('svg')) {
  const silent = svg.closest('[aria-hidden=true]') || svg.closest('[role=img]');
  if (!silent) barriers.push(`${name(svg)} is neither named nor hidden`);
}
for (const table of all('table')) {
  if (all('th', table).some((cell) => !cell.scope)) barriers.push(`${name(table)}: a heading without scope`);
}
for (const element of all('[tabindex]')) {
  if (element.tabIndex > 0) barriers.push(`${name(element)} jumps the queue`);
}
for (const element of all('*').filter(visible)) {
  const style = getComputedStyle(element);
  const scrolls = /auto|scroll/.test(style.overflowX + style.overflowY)
    && (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1);
  if (scrolls && element.tabIndex < 0 && element !== document.documentElement && element !== document.body) {
    barriers.push(`${name(element)} scrolls and cannot be focused`);
  }
}
for (const element of all('button, select, nav a, summary').filter(visible)) {
  const { width, height } = element.getBoundingClientRect();
  if (Math.min(width, height) < 24) barriers.push(`${name(element)} is ${width} × ${height} pixels small`);
}
const root = document.documentElement;
if (root.scrollWidth > innerWidth) barriers.push(`the page is ${root.scrollWidth} pixels wide in a window of ${innerWidth}`);

// WCAG 2.2, 1.4.3: contrast of text.
const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
const channels = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, ground) => [0, 1, 2].map((i) => top[i] * top[3] + ground[i] * (1 - top[3])).concat(1);
const ground = (element) => {
  if (!element) return [255, 255, 255, 1];
  const own = channels(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own : over(own, ground(element.parentElement));
};
const luminance = (colour) => {
  const [r, g, b] = colour.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let texts = 0;
for (const element of all('body *').filter(visible)) {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!own || element.closest(':disabled, label:has(:disabled)') || element.closest('title, script, style')) continue;
  texts += 1;
  const style = getComputedStyle(element);
  const behind = ground(element);
  const front = over(channels(element instanceof SVGElement ? style.fill : style.color), behind);
  const [high, low] = [luminance(front), luminance(behind)].sort((a, b) => b - a);
  const contrast = (high + 0.05) / (low + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) barriers.push(`${name(element)} has a contrast of ${contrast.toFixed(2)}`);
}
if (!texts) barriers.push('there is no text at all');
return [...new Set(barriers)];
