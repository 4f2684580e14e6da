// Gaussians in glTF (KHR_gaussian_splatting_compression_spz_2): a decoder of SPZ, version 2, and the
// form in which a texture holds them.
import { Matrix4, Object3D, Quaternion, Vector3 } from 'three';

const GAUSSIANS = 'KHR_gaussian_splatting';
const SPZ = 'KHR_gaussian_splatting_compression_spz_2';
const MAGIC = 0x5053474e;
const HEADER = 16;
const SH_C0 = 0.28209479177387814; // the spherical harmonic of degree 0
const COLOUR = 0.15; // scale of its coefficient in SPZ

/** Numbers of uint32 of one Gaussian. */
export const WORDS = 8;

export async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).arrayBuffer();
}

/**
 * Read SPZ of version 2: columns of positions (fixed point of 24 bits), opacities, colours,
 * logarithms of deviations and quaternions, a byte for each number but those of positions.
 */
export async function readSpz(bytes) {
  const data = new Uint8Array(await gunzip(bytes));
  const head = new DataView(data.buffer, 0, HEADER);
  if (head.getUint32(0, true) !== MAGIC || head.getUint32(4, true) !== 2) {
    throw new Error('these Gaussians are not SPZ of version 2');
  }
  const count = head.getUint32(8, true);
  let at = HEADER;
  const column = (width) => data.subarray(at, (at += width * count));
  const [places, opacities, colours, scales, turns] = [9, 1, 3, 3, 3].map(column);
  if (turns.length !== 3 * count) throw new Error('these Gaussians are cut off');
  const unit = 2 ** -head.getUint8(13);
  const positions = new Float64Array(3 * count);
  for (let i = 0; i < 3 * count; i++) {
    const value = places[3 * i] | (places[3 * i + 1] << 8) | (places[3 * i + 2] << 16);
    positions[i] = ((value << 8) >> 8) * unit; // with the sign of bit 23
  }
  return { count, positions, opacities, colours, scales, turns };
}

const half = (() => {
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  /** The bits of a positive number as float16. */
  return (value) => {
    float[0] = Math.min(Math.max(value, 6.2e-5), 65504);
    return ((bits[0] - 0x38000000 + 0x1000) >>> 13) & 0x7fff;
  };
})();

const snorm = (value) => Math.round(Math.min(Math.max(value, -1), 1) * 32767) & 0xffff;

/**
 * Gaussians in another frame, as a texture holds them: x, y, z (bits of float32), colour and opacity
 * (a byte each), quaternion (two words of two snorm16), two deviations (float16), class.
 */
export function placed({ count, positions, opacities, colours, scales, turns, classes }, matrix) {
  const words = new Uint32Array(WORDS * count);
  const floats = new Float32Array(words.buffer);
  const turn = new Quaternion();
  const own = new Quaternion();
  const size = new Vector3();
  matrix.decompose(new Vector3(), turn, size);
  const larger = Math.cbrt(size.x * size.y * size.z);
  const deviation = Float32Array.from({ length: 256 }, (_, i) => Math.exp(i / 16 - 10) * larger);
  const shown = Uint8Array.from({ length: 256 }, (_, i) =>
    255 * Math.min(Math.max(0.5 + SH_C0 * (i / 255 - 0.5) / COLOUR, 0), 1) + 0.5);
  const m = matrix.elements;
  for (let i = 0; i < count; i++) {
    const [x, y, z] = [positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]];
    const to = WORDS * i;
    for (let axis = 0; axis < 3; axis++) {
      floats[to + axis] = m[axis] * x + m[4 + axis] * y + m[8 + axis] * z + m[12 + axis];
    }
    words[to + 3] = shown[colours[3 * i]] | (shown[colours[3 * i + 1]] << 8) |
      (shown[colours[3 * i + 2]] << 16) | (opacities[i] << 24);
    const [a, b, c] = [turns[3 * i], turns[3 * i + 1], turns[3 * i + 2]].map((v) => v / 127.5 - 1);
    own.set(a, b, c, Math.sqrt(Math.max(1 - a * a - b * b - c * c, 0))).premultiply(turn).normalize();
    words[to + 4] = snorm(own.x) | (snorm(own.y) << 16);
    words[to + 5] = snorm(own.z) | (snorm(own.w) << 16);
    words[to + 6] = half(deviation[scales[3 * i]]) | (half(deviation[scales[3 * i + 1]]) << 16);
    words[to + 7] = classes ? classes[i] : 0;
  }
  return words;
}

/** A plugin of GLTFLoader: a mesh of Gaussians becomes an object that has them in `userData`. */
class Loader {
  constructor(parser) {
    this.name = SPZ;
    this.parser = parser;
  }

  async loadMesh(index) {
    const [{ extensions, extras }] = this.parser.json.meshes[index].primitives;
    const packed = extensions?.[GAUSSIANS]?.extensions?.[SPZ];
    if (!packed) return null;
    const view = (number) => this.parser.getDependency('bufferView', number);
    const gaussians = await readSpz(await view(packed.bufferView));
    if (Number.isInteger(extras?.classes)) {
      gaussians.classes = new Uint8Array(await gunzip(await view(extras.classes)));
    }
    const object = new Object3D();
    object.userData.gaussians = gaussians;
    return object;
  }
}

export const LOADERS = [(parser) => new Loader(parser), () => ({ name: GAUSSIANS })];

/** The Gaussians of a tile in the frame that `above` leads to, WORDS uint32 each. */
export function gaussiansOf(scene, above) {
  const found = [];
  const visit = (object, to) => {
    object.updateMatrix();
    const here = new Matrix4().multiplyMatrices(to, object.matrix);
    const { gaussians } = object.userData;
    if (gaussians) {
      found.push(placed(gaussians, here));
      delete object.userData.gaussians;
    }
    for (const child of object.children) visit(child, here);
  };
  visit(scene, above);
  const all = new Uint32Array(found.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of found) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
