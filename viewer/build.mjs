// Builds the page into plugins/earthgen_viewer/page: viewer.js, viewer.css,
// page.html, licences.txt, build.json.
// `--check` builds in memory and says whether the committed files are those of this source.
import { readFileSync, writeFileSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(here, '../plugins/earthgen_viewer/page');

async function bundle(entry, options = {}) {
  const result = await build({
    absWorkingDir: here, entryPoints: [entry], bundle: true, minify: true, write: false,
    metafile: true, legalComments: 'none', target: ['es2022'], charset: 'utf8', ...options,
  });
  return { text: result.outputFiles[0].text, inputs: used(result.metafile) };
}

/** SHA-256 of the source by name, with which a test finds out that it has changed since the build. */
function sources() {
  const names = ['build.mjs', 'package-lock.json', ...readdirSync(join(here, 'src')).map((name) => `src/${name}`)];
  return Object.fromEntries(names.sort().map((name) =>
    [name, createHash('sha256').update(readFileSync(join(here, name))).digest('hex')]));
}

/** The files of which something is left in the output. */
function used({ outputs }) {
  return Object.values(outputs).flatMap(({ inputs }) =>
    Object.entries(inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([name]) => name));
}

/** The licence texts of the packages that went into the bundle. */
function licences(inputs) {
  const names = new Set();
  for (const input of inputs) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) names.add(found[1]);
  }
  const texts = [...names].sort().map((name) => {
    const folder = join(here, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
    if (!file) throw new Error(`${name} comes without the text of its licence`);
    const text = readFileSync(join(folder, file), 'utf8').trim();
    return `${name} ${version} (${license})\n\n${text}\n`;
  });
  return texts.join(`\n${'-'.repeat(72)}\n\n`);
}

// A script element ends at the first "</script", wherever it stands.
const script = await bundle('src/main.js', { format: 'iife' });
const style = await bundle('src/style.css');
const files = {
  'viewer.js': script.text.replaceAll('</script', '<\\/script'),
  'viewer.css': style.text,
  'page.html': readFileSync(join(here, 'src/page.html'), 'utf8'),
  'licences.txt': licences(script.inputs),
  'build.json': `${JSON.stringify(sources(), null, 1)}\n`,
};
if (process.argv.includes('--check')) {
  const stale = Object.keys(files).filter((name) => {
    try {
      return readFileSync(join(target, name), 'utf8') !== files[name];
    } catch {
      return true;
    }
  });
  if (stale.length) {
    console.error(`not built from this source: ${stale.join(', ')}; run npm run build`);
    process.exit(1);
  }
} else {
  mkdirSync(target, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(target, name), text);
}
const bytes = Object.values(files).join('');
console.log(`${(bytes.length / 1e3).toFixed(0)} kB, ${(gzipSync(bytes).length / 1e3).toFixed(0)} kB gzipped`);
