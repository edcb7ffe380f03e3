// A set that the demo has not seen, to fine-tune on: drawings of the Open Clip Art Library 0.18 with their titles, keywords and
// descriptions, which their authors have dedicated to the public domain. Debian's package openclipart-svg holds them:
//
//   apt-get download openclipart-svg && dpkg-deb -x openclipart-svg_*.deb DIR
//   npm ci && node clipart.mjs --from DIR --out out            (Node 18.17 or later; three minutes)
//   trainer data import coco --out clipart --images out/images --captions out/annotations/captions_train.json \
//     --captions out/annotations/captions_val.json --captions out/annotations/captions_test.json
//
// The splits are 80, 10 and 10 % by hashes of names, a series of drawings in one split.
import fs from 'node:fs';
import path from 'node:path';
import os from 'node:os';
import { createHash } from 'node:crypto';
import sharp from 'sharp';

const size = 64, pad = 2, background = '#ffffff';
const argument = name => { const at = process.argv.indexOf(name); return at > 0 ? process.argv[at + 1] : ''; };
const from = argument('--from'), out = argument('--out');
const root = path.join(from, 'usr/share/openclipart/svg');
if (!from || !out || !fs.existsSync(root) || fs.existsSync(path.join(out, 'images'))) {
  console.error('usage: node clipart.mjs --from FOLDER --out FOLDER; the first must hold the unpacked package, the second no images');
  process.exit(2);
}
const bucket = key => createHash('sha256').update(key).digest().readUInt32BE(0) / 2 ** 32;

// --- texts: what the files say of themselves ---------------------------------------------------------------------------------
const unescape = s => s.replace(/&#x([0-9a-f]+);/gi, (_, h) => String.fromCodePoint(parseInt(h, 16))).replace(/&#(\d+);/g, (_, d) => String.fromCodePoint(+d))
  .replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&quot;/g, '"').replace(/&apos;/g, "'").replace(/&amp;/g, '&');
const tidy = s => unescape(s || '').replace(/[_\s]+/g, ' ').replace(/^[\s"'.,:;-]+|[\s"',:;-]+$/g, '').trim();

// titles, keywords and folders that say nothing of the picture
const dullTitle = /^(clip ?art by|various|chess pieces|rpg map|part of the|lemon svg|svg road signs|layer|untitled|drawing|gramastar|aiga|hash\(|new document|a?\d+|image|simple arrows|people|card|pattern|icon|symbol|shape|unsorted|openclipart|clipart|etiquette|.*@|.*https?:|.*\.svg)/i;
const dullWord = new Set('unsorted hash clip art clipart clip_art externalsource inkscape theme icons icon computer hash symbol symbols signs sign signs_and_symbols image svg vector color colour black white bw misc special other mapsym networksym lemon_theme_icon shape shapes geometry recreation office action application'.split(' '));
const dullFolder = /^(shapes|special|logos|computer\/(icons|buttons|folders)|signs_and_symbols\/(led|map_symbols|flags)|recreation\/games\/cards|geography)(\/|$)/;
const authors = /^(svg|architetto|francesc[oa]?|frances|franc|rollandin|gerald|ganson|dan|gerhards|clipart|left|alt|ver|von|der|van|ash|jon|phillips|nicu|buculei)$/;

const files = dir => fs.readdirSync(dir, { withFileTypes: true })
  .flatMap(e => (e.isDirectory() ? files(path.join(dir, e.name)) : e.name.endsWith('.svg') ? [path.join(dir, e.name)] : []));

// read returns the record of a file, or nothing if it has no words of its own or is not in the public domain.
function read(file) {
  const rel = path.relative(root, file), svg = fs.readFileSync(file, 'utf8');
  if (dullFolder.test(rel) || !/publicdomain/i.test((svg.match(/license[^>]*resource="([^"]*)"/) || [])[1] || '')) return [];
  const work = (svg.match(/<(?:cc:)?Work[^>]*>([\s\S]*?)<\/(?:cc:)?Work>/) || ['', ''])[1];
  const creator = tidy((work.match(/<(?:dc:)?creator>[\s\S]*?<(?:dc:)?title>([\s\S]*?)<\//) || ['', ''])[1]);
  const own = work.replace(/<(?:dc:)?(publisher|creator|rights|contributor)>[\s\S]*?<\/(?:dc:)?\1>/g, '');
  let title = tidy((own.match(/<(?:dc:)?title>([\s\S]*?)<\//) || ['', ''])[1]);
  const description = tidy((own.match(/<(?:dc:)?description>([\s\S]*?)<\//) || ['', ''])[1]);
  let words = [...own.matchAll(/<rdf:li>([\s\S]*?)<\/rdf:li>/g)].map(m => tidy(m[1]).toLowerCase())
    .filter(w => w && w.length < 24 && !/hash\(/.test(w) && !dullWord.has(w.replace(/ /g, '_')) && !dullWord.has(w));
  const parts = rel.split(path.sep), folder = parts.length > 2 ? `${parts[0]}/${parts[1]}` : parts[0];
  if (!title || dullTitle.test(title) || title.length > 60 || !/[a-z]{3}/i.test(title)) { // the file's name, less its author's
    const names = creator.toLowerCase().split(/[^a-z]+/).filter(w => w.length > 1);
    title = parts.at(-1).replace(/\.svg$/i, '').toLowerCase().split(/[^a-z]+/)
      .filter(w => w.length > 2 && !authors.test(w) && !names.some(n => n.startsWith(w) || w.startsWith(n))).join(' ');
  }
  title = title.replace(/\baiga\b|\bsvg\b|\bby .*$/gi, '').replace(/-aj\b/, '').replace(/\s*[-#(]?\s*\b\d+\b\)?$/, '').replace(/\s*\(?#?\d+\)?$/, '').trim();
  if (!/[a-z]{3}/i.test(title)) {
    if (!words.length) return [];
    title = words.slice(0, 2).join(' ');
  }
  words = [...new Set(words)].filter(w => w !== title.toLowerCase());
  const captions = [{ caption: title, kind: 'title' }], n = description.split(/\s+/).length;
  if (n >= 3 && n <= 30 && !/https?:|www\.|@|hash\(/i.test(description) && description.toLowerCase() !== title.toLowerCase()) captions.push({ caption: description, kind: 'description' });
  if (words.length) captions.push({ caption: `${title}: ${words.slice(0, 8).join(', ')}`, kind: 'tags' });
  const b = bucket(`clipart/${folder}/${parts.at(-1).toLowerCase().replace(/\.svg$/, '').replace(/[^a-z]+/g, ' ').trim()}`);
  return [{ svg: file, captions, split: b < 0.8 ? 'train' : b < 0.9 ? 'val' : 'test', name: rel.replace(/[^A-Za-z0-9/._-]/g, '_').replace(/\.svg$/i, '.png') }];
}

// --- pictures: without their margins. One without a viewBox is drawn at its own size, as another density would cut it --------
async function draw(file) {
  const open = density => sharp(file, { density, unlimited: true, limitInputPixels: false });
  const { width, height } = await open(72).metadata(), side = Math.max(width, height);
  let density = 72;
  if (/viewBox/.test((fs.readFileSync(file, 'utf8').match(/<svg[^>]*>/) || [''])[0]) && side < 4 * size) density = Math.min(600, 72 * 4 * size / side);
  if (width * height > 8e6) density = Math.floor(72 * Math.sqrt(8e6 / (width * height)));
  const raw = async image => { const { data, info } = await image.raw().toBuffer({ resolveWithObject: true }); return sharp(data, { raw: { width: info.width, height: info.height, channels: info.channels } }); };
  const flat = await raw(open(Math.max(1, density)).flatten({ background }).toColourspace('srgb'));
  const cut = await raw(flat.clone().trim({ background, threshold: 8 })).catch(() => flat);
  const png = await cut.resize(size - 2 * pad, size - 2 * pad, { fit: 'contain', background })
    .extend({ top: pad, bottom: pad, left: pad, right: pad, background }).removeAlpha().toColourspace('srgb').png({ compressionLevel: 9 }).toBuffer();
  return (await sharp(png).stats()).channels.every(c => c.stdev < 4) ? null : png; // even: librsvg lacks what it uses
}

const records = files(root).flatMap(read).sort((a, b) => (a.name < b.name ? -1 : 1)), drawn = [], queue = records.entries();
await Promise.all(os.cpus().map(async () => {
  for (const [i, r] of queue) {
    const png = await draw(r.svg).catch(() => null); // some are no SVG that can be read
    if (!png) continue;
    const file = path.join(out, 'images', r.name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, png);
    drawn[i] = r;
  }
}));

// --- COCO captions JSON, a record a line -------------------------------------------------------------------------------------
const lines = a => '[\n' + a.map(x => JSON.stringify(x)).join(',\n') + '\n]';
const licenses = [{ id: 1, name: 'CC-PDDC', url: 'https://creativecommons.org/licenses/publicdomain/', title: 'Open Clip Art Library 0.18, public domain dedication' }];
const splits = {};
let imageID = 0, captionID = 0;
for (const r of drawn.filter(Boolean)) {
  const s = (splits[r.split] ||= { images: [], annotations: [] });
  s.images.push({ id: ++imageID, file_name: r.name, width: size, height: size, license: 1 });
  for (const c of r.captions) s.annotations.push({ id: ++captionID, image_id: imageID, ...c });
}
fs.mkdirSync(path.join(out, 'annotations'), { recursive: true });
for (const [split, s] of Object.entries(splits)) {
  fs.writeFileSync(path.join(out, 'annotations', `captions_${split}.json`), `{"licenses":${lines(licenses)},\n"images":${lines(s.images)},\n"annotations":${lines(s.annotations)}}\n`);
  console.log(`${split}: ${s.images.length} pictures, ${s.annotations.length} captions`);
}
