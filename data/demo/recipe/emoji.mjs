// The demo set's pictures: drawings of the same concepts in six styles, with CLDR names and keywords as captions.
//
//   npm ci && node emoji.mjs --out out            (Node 18.17 or later; about 15 s)
//   trainer data import coco --out ../emoji --name emoji --shard-bytes 8388608 \
//     --description "Emoji in six drawing styles, with their names and keywords from the Unicode CLDR" \
//     --images out/images --classes out/classes.json \
//     --captions out/annotations/captions_train.json --captions out/annotations/captions_val.json \
//     --captions out/annotations/captions_test_style.json --captions out/annotations/captions_test_concept.json \
//     --captions out/annotations/captions_test_both.json
//
// The lock file pins every package by its hash, so the pixels are the same each time. Only styles whose licence lets the
// pictures lie beside code under another licence are used; none is ShareAlike.
//
// It writes OUT/images/STYLE/CODE.png, OUT/annotations/captions_SPLIT.json and OUT/classes.json. The splits are
//
//   train         five styles
//   val           one drawing each of some concepts that train shows in two other styles or more, so that choosing a model
//                 on it tells nothing of the test splits
//   test_style    an unseen style (Twemoji) of the concepts of train
//   test_concept  unseen concepts in the styles of train
//   test_both     unseen concepts in the unseen style
//
// They hang on hashes of code points, so they stay when a package is updated.
import fs from 'node:fs';
import path from 'node:path';
import os from 'node:os';
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import sharp from 'sharp';

const styles = ['noto', 'noto-v1', 'fluent-emoji-flat', 'emojione', 'fxemoji', 'twemoji'];
const testStyle = 'twemoji';
const size = 64, background = '#ffffff';
const heldOutShare = 0.12, valShare = 0.3;

const at = process.argv.indexOf('--out');
const out = at > 0 ? process.argv[at + 1] : 'out';
if (!out || fs.existsSync(path.join(out, 'images'))) {
  console.error(`usage: node emoji.mjs --out FOLDER; ${out}/images must not exist`);
  process.exit(2);
}

const require = createRequire(import.meta.url);
const pkgDir = p => path.dirname(require.resolve(p + '/package.json'));
const readJSON = (...f) => JSON.parse(fs.readFileSync(path.join(...f), 'utf8'));
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

// bucket maps a key to [0, 1) in a way that depends on the key alone.
const bucket = key => createHash('sha256').update(key).digest().readUInt32BE(0) / 2 ** 32;

// --- concepts: all emoji but skin tones (group 2) and flags (group 9), which few styles draw -----------------------------
const base = pkgDir('emojibase-data');
const meta = readJSON(base, 'meta/groups.json');
const inWords = id => id.replace(/-/g, ' ');
const norm = hex => hex.toUpperCase().replace(/-FE0F/g, '');
const concepts = new Map();
for (const e of readJSON(base, 'en/data.json')) {
  if (e.group === undefined || e.group === 2 || e.group === 9) continue;
  concepts.set(norm(e.hexcode), { hex: e.hexcode, label: e.label, tags: e.tags || [], alt: new Set(), group: meta.groups[e.group], sub: meta.subgroups[e.subgroup], order: e.order });
}

// Names that a picture set may use for a concept, best first: the CLDR label, then the shortcode vocabularies. The exception
// is a former CLDR name that a shortcode vocabulary gives to another concept.
const squash = s => s.toLowerCase().normalize('NFD').replace(/[\u0300-\u036f]/g, '').replace(/&/g, 'and').replace(/[^a-z0-9]+/g, '');
const byName = new Map([['poutingface', concepts.get('1F621')]]);
const name = (n, c) => { const k = squash(n); if (k && !byName.has(k)) byName.set(k, c); };
for (const c of concepts.values()) name(c.label, c);
for (const v of ['cldr', 'github', 'joypixels', 'iamcal', 'emojibase']) {
  for (const [hex, codes] of Object.entries(readJSON(base, `en/shortcodes/${v}.json`))) {
    const c = concepts.get(norm(hex));
    if (!c) continue;
    for (const one of [].concat(codes)) { name(one, c); c.alt.add(one.replace(/_/g, ' ')); }
  }
}

// captions of a concept; every style of it shares them.
function captions(c) {
  const list = [], seen = new Set();
  const put = (caption, kind) => { const k = caption.toLowerCase(); if (caption && !seen.has(k)) { seen.add(k); list.push({ caption, kind }); } };
  put(c.label, 'label');
  const words = new Set(c.label.toLowerCase().split(/[^\p{L}\p{N}]+/u));
  const other = [...c.alt].find(a => /^[a-z][a-z ]{2,}$/.test(a) && a.split(' ').some(w => !words.has(w)));
  if (other) put(other, 'name');
  const tags = c.tags.filter(t => t.toLowerCase() !== c.label.toLowerCase());
  if (tags.length) put(`${c.label}: ${tags.slice(0, 8).join(', ')}`, 'tags');
  put(`${inWords(c.sub)}, ${c.label}`, 'category');
  return list;
}

// --- pictures -------------------------------------------------------------------------------------------------------------
const licenses = [], jobs = [], drawn = new Map();
for (const style of styles) {
  const dir = pkgDir('@iconify-json/' + style);
  const set = readJSON(dir, 'icons.json'), info = readJSON(dir, 'info.json');
  const chars = fs.existsSync(path.join(dir, 'chars.json')) ? readJSON(dir, 'chars.json') : {};
  if (!['Apache-2.0', 'MIT', 'CC-BY-4.0'].includes(info.license.spdx)) throw new Error(`${style} is now under ${info.license.spdx}`);
  // Of Firefox OS Emoji the package says Apache-2.0; its authors' LICENSE.md gives CC BY 4.0 for the drawings.
  if (style === 'fxemoji') info.license = { spdx: 'CC-BY-4.0', url: 'https://creativecommons.org/licenses/by/4.0/' };
  licenses.push({ id: licenses.length + 1, name: `${info.license.spdx}: ${info.name} by ${info.author.name}`, url: info.license.url });
  const found = new Map();
  for (const [hex, n] of Object.entries(chars)) { const c = concepts.get(norm(hex)); if (c && set.icons[n] && !found.has(c)) found.set(c, n); }
  for (const n of Object.keys(set.icons)) { const c = byName.get(squash(n)); if (c && !found.has(c)) found.set(c, n); }
  for (const [c, n] of found) {
    const i = set.icons[n], w = i.width || set.width || 16, h = i.height || set.height || 16;
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${2 * size}" height="${2 * size}" viewBox="${i.left || 0} ${i.top || 0} ${w} ${h}">${i.body}</svg>`;
    jobs.push({ c, style, svg, license: licenses.length });
    if (style !== testStyle) drawn.set(c, [...(drawn.get(c) || []), style]);
  }
  console.log(`${style}: ${found.size} of ${concepts.size} concepts`);
}
const heldOut = c => bucket('emoji/' + c.hex) < heldOutShare;
const valStyle = c => { const s = drawn.get(c) || []; return s.length >= 3 && bucket('val/' + c.hex) < valShare ? s[Math.floor(bucket('val style/' + c.hex) * s.length)] : ''; };
const splitOf = (c, style) => heldOut(c) ? (style === testStyle ? 'test_both' : 'test_concept') : style === testStyle ? 'test_style' : style === valStyle(c) ? 'val' : 'train';

const draw = svg => sharp(Buffer.from(svg)).flatten({ background }).resize(size, size, { fit: 'contain', background, kernel: 'lanczos3' })
  .removeAlpha().toColourspace('srgb').png({ compressionLevel: 9 }).toBuffer();
for (const style of styles) fs.mkdirSync(path.join(out, 'images', style), { recursive: true });
const queue = jobs.values();
await Promise.all(os.cpus().map(async () => {
  for (const j of queue) {
    j.file = `${j.style}/${j.c.hex.toLowerCase()}.png`;
    fs.writeFileSync(path.join(out, 'images', j.file), await draw(j.svg));
  }
}));

// --- COCO captions JSON, a record a line ------------------------------------------------------------------------------------
const bySplit = {};
let imageID = 0, captionID = 0;
for (const { c, style, file, license } of jobs.sort((a, b) => compare(a.file, b.file))) {
  const s = (bySplit[splitOf(c, style)] ||= { images: [], annotations: [] });
  s.images.push({ id: ++imageID, file_name: file, width: size, height: size, license, concept: c.hex, label: c.label, style, category: c.group, subcategory: c.sub });
  for (const caption of captions(c)) s.annotations.push({ id: ++captionID, image_id: imageID, ...caption });
}
const lines = a => '[\n' + a.map(x => JSON.stringify(x)).join(',\n') + '\n]';
fs.mkdirSync(path.join(out, 'annotations'));
for (const [split, s] of Object.entries(bySplit)) {
  fs.writeFileSync(path.join(out, 'annotations', `captions_${split}.json`),
    `{"licenses":${lines(licenses)},\n"images":${lines(s.images)},\n"annotations":${lines(s.annotations)}}\n`);
  console.log(`${split}: ${s.images.length} pictures, ${s.annotations.length} captions`);
}

const all = [...concepts.values()].filter(c => jobs.some(j => j.c === c)).sort((a, b) => a.order - b.order);
const ids = key => [...new Set(all.map(c => c[key]))].sort(compare).map(id => ({ id, text: inWords(id) }));
fs.writeFileSync(path.join(out, 'classes.json'), `{
"templates": ${JSON.stringify(['{}', 'an emoji of {}', 'a picture of {}', 'a small drawing of {}', 'an icon of {}'])},
"concept": ${lines(all.map(c => ({ id: c.hex, text: c.label })))},
"category": ${lines(ids('group'))},
"subcategory": ${lines(ids('sub'))}
}
`);
