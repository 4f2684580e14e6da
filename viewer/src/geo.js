// Where things are: the scene's frame, the CRS of the world, the sun.
import { MathUtils, Matrix4, Vector3 } from 'three';
import { WGS84_ELLIPSOID } from '3d-tiles-renderer/three';

const UP_IS_Y = new Matrix4().makeRotationX(-Math.PI / 2);
const point = new Vector3();
const place = {};

/**
 * The frame of the scene: x east, y up, z south of a point of the ellipsoid, metres.
 * `fromEcef` takes what 3D Tiles hold (EPSG:4978) there, `toEcef` takes it back.
 */
export class LocalFrame {
  constructor({ lon, lat, height }) {
    const frame = new Matrix4();
    WGS84_ELLIPSOID.getEastNorthUpFrame(
      lat * MathUtils.DEG2RAD, lon * MathUtils.DEG2RAD, height, frame,
    );
    this.fromEcef = frame.clone().invert().premultiply(UP_IS_Y);
    this.toEcef = this.fromEcef.clone().invert();
  }

  /** Longitude and latitude in degrees, and height in metres, of a point of the scene. */
  lonLat(position) {
    point.copy(position).applyMatrix4(this.toEcef);
    WGS84_ELLIPSOID.getPositionToCartographic(point, place);
    return {
      lon: place.lon * MathUtils.RAD2DEG, lat: place.lat * MathUtils.RAD2DEG, height: place.height,
    };
  }

  /** The point of the scene at a longitude, latitude (degrees) and height (metres). */
  position({ lon, lat, height }, target = new Vector3()) {
    WGS84_ELLIPSOID.getCartographicToPosition(
      lat * MathUtils.DEG2RAD, lon * MathUtils.DEG2RAD, height, target,
    );
    return target.applyMatrix4(this.fromEcef);
  }
}

/**
 * East and north in the world's CRS, from polynomials of longitude and latitude that were fitted to
 * the projection over the world (their error is given in the scene).
 */
export function project({ centre, scale, degree, east, north }, { lon, lat }) {
  const turn = ((((lon - centre[0] + 180) % 360) + 360) % 360) - 180; // across the antimeridian
  const u = turn / scale[0];
  const v = (lat - centre[1]) / scale[1];
  let x = 0;
  let y = 0;
  let term = 0;
  for (let i = 0; i <= degree; i++) {
    for (let j = 0; j <= degree - i; j++, term++) {
      const product = u ** i * v ** j;
      x += east[term] * product;
      y += north[term] * product;
    }
  }
  return { east: x, north: y };
}

/**
 * Azimuth (clockwise from north) and elevation of the sun, degrees, at a day of the year and an
 * hour of solar time: declination after Cooper (1969), which is right to about half a degree.
 */
export function sunAt(lat, day, hour) {
  const declination = 23.45 * MathUtils.DEG2RAD * Math.sin((2 * Math.PI * (284 + day)) / 365);
  const angle = (hour - 12) * 15 * MathUtils.DEG2RAD;
  const phi = lat * MathUtils.DEG2RAD;
  const up =
    Math.sin(phi) * Math.sin(declination) +
    Math.cos(phi) * Math.cos(declination) * Math.cos(angle);
  const east = -Math.cos(declination) * Math.sin(angle);
  const north =
    Math.cos(phi) * Math.sin(declination) -
    Math.sin(phi) * Math.cos(declination) * Math.cos(angle);
  return {
    azimuth: (Math.atan2(east, north) * MathUtils.RAD2DEG + 360) % 360,
    elevation: Math.asin(MathUtils.clamp(up, -1, 1)) * MathUtils.RAD2DEG,
  };
}

/** The unit vector of the scene in a direction: degrees clockwise from north, and above the horizon. */
export function direction({ azimuth, elevation }, target = new Vector3()) {
  const a = azimuth * MathUtils.DEG2RAD;
  const e = elevation * MathUtils.DEG2RAD;
  return target.set(Math.sin(a) * Math.cos(e), Math.sin(e), -Math.cos(a) * Math.cos(e));
}

/** 1, 2 or 5 times a power of ten, at most `length`. */
export function roundLength(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return [5, 2, 1].find((digit) => digit * power <= length) * power;
}

export function lengthText(metres) {
  const size = Math.abs(metres);
  if (size >= 10000) return `${(metres / 1000).toFixed(1)} km`;
  if (size >= 1000) return `${(metres / 1000).toFixed(2)} km`;
  return `${metres.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2)} m`;
}

export function areaText(squareMetres) {
  if (squareMetres >= 1e6) return `${(squareMetres / 1e6).toFixed(2)} km²`;
  if (squareMetres >= 1e4) return `${(squareMetres / 1e4).toFixed(2)} ha`;
  return `${squareMetres.toFixed(squareMetres < 100 ? 1 : 0)} m²`;
}

export function lonLatText({ lon, lat }) {
  const part = (value, positive, negative) =>
    `${Math.abs(value).toFixed(6)}° ${value < 0 ? negative : positive}`;
  return `${part(lat, 'N', 'S')}  ${part(lon, 'E', 'W')}`;
}

const digits = new Intl.NumberFormat('en', {
  minimumFractionDigits: 1, maximumFractionDigits: 1, useGrouping: false,
});
export const metres = (value) => digits.format(value);
