// The state of the page as the part of its address behind #, and a picture of it.
import { LAYERS } from './material.js';

const number = (value, digits) => Number(value.toFixed(digits));

/** The address part of a state: camera, layer, hidden classes, sun, shadows, slider. */
export function toHash({ pose, layer, hidden, sun, shadows, split }) {
  const parts = [
    `at=${[number(pose.lon, 7), number(pose.lat, 7), number(pose.height, 1),
      number(pose.heading, 1), number(pose.tilt, 1)].join(',')}`,
    `layer=${layer}`,
    `sun=${number(sun.day, 0)},${number(sun.hour, 2)}`,
  ];
  if (hidden.length) parts.push(`hide=${hidden.join(',')}`);
  if (!shadows) parts.push('shadows=off');
  if (split !== null) parts.push(`split=${number(split, 3)}`);
  return `#${parts.join('&')}`;
}

/** What an address part says; what it does not say, or says wrongly, is left out. */
export function fromHash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  const numbers = (name) => {
    const list = (given.get(name) ?? '').split(',').filter(Boolean).map(Number);
    return list.every(Number.isFinite) ? list : [];
  };
  const state = {};
  const at = numbers('at');
  if (at.length === 5 && Math.abs(at[1]) <= 90) {
    const [lon, lat, height, heading, tilt] = at;
    state.pose = { lon, lat, height, heading, tilt: Math.min(Math.max(tilt, -89), 90) };
  }
  if (LAYERS.includes(given.get('layer'))) state.layer = given.get('layer');
  const sun = numbers('sun');
  if (sun.length === 2) {
    state.sun = { day: Math.min(Math.max(sun[0], 1), 365), hour: Math.min(Math.max(sun[1], 0), 24) };
  }
  if (given.has('hide')) state.hidden = numbers('hide').filter(Number.isInteger);
  if (given.has('shadows')) state.shadows = given.get('shadows') !== 'off';
  const [split] = numbers('split');
  if (split !== undefined) state.split = split;
  return state;
}

/** Copy text; false where the browser does not let a page do so. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

export function download(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** The canvas as it is seen, with the title, a scale bar, north and the sources below it. */
export async function screenshot(view, { title, scale, heading, credits }) {
  view.draw(); // the buffer of a canvas is only defined right after drawing
  const { canvas } = view;
  const ratio = view.renderer.getPixelRatio();
  const band = Math.round(34 * ratio);
  const out = document.createElement('canvas');
  out.width = canvas.width;
  out.height = canvas.height + band;
  const pen = out.getContext('2d');
  pen.drawImage(canvas, 0, 0);
  pen.fillStyle = '#10161d';
  pen.fillRect(0, canvas.height, out.width, band);
  pen.fillStyle = '#f2f5f7';
  pen.textBaseline = 'middle';
  const middle = canvas.height + band / 2;
  const font = 'system-ui, sans-serif';
  pen.font = `600 ${14 * ratio}px ${font}`;
  pen.fillText(title, 14 * ratio, middle);
  let left = 14 * ratio + pen.measureText(title).width + 20 * ratio;
  const right = out.width - 14 * ratio;
  const bar = scale.pixels * ratio;
  pen.font = `${12 * ratio}px ${font}`;
  const label = pen.measureText(scale.text).width;
  const start = right - 34 * ratio - bar - label - 10 * ratio;
  pen.fillText(scale.text, start, middle);
  pen.fillRect(start + label + 10 * ratio, middle - 1.5 * ratio, bar, 3 * ratio);
  pen.save();
  pen.translate(right - 10 * ratio, middle);
  pen.rotate(-heading * Math.PI / 180);
  pen.beginPath();
  pen.moveTo(0, -11 * ratio);
  pen.lineTo(7 * ratio, 10 * ratio);
  pen.lineTo(0, 5 * ratio);
  pen.lineTo(-7 * ratio, 10 * ratio);
  pen.closePath();
  pen.fill();
  pen.restore();
  pen.fillStyle = '#a9b4bf';
  pen.font = `${11 * ratio}px ${font}`;
  let text = credits;
  while (text && left + pen.measureText(text).width > start - 20 * ratio) {
    text = text.length > 4 ? `${text.slice(0, -4).trimEnd()}…` : '';
  }
  pen.fillText(text, left, middle);
  return new Promise((resolve) => out.toBlob(resolve, 'image/png'));
}
