//! A picture from outside: decoded within limits, sampled, and wiped when it is no longer needed.

use crate::FaceError;
use std::io::Cursor;
use zeroize::Zeroize as _;
use zune_jpeg::{
    JpegDecoder,
    zune_core::{colorspace::ColorSpace, options::DecoderOptions},
};

/// The largest file of a picture: 4 MiB.
pub const PICTURE_BYTES_MAX: usize = 4 << 20;
/// The longest side of a picture, in pixels.
const SIDE_MAX: usize = 6000;
/// The most pixels of a picture.
const PIXELS_MAX: usize = 16_000_000;
/// The shortest side of a picture, in pixels.
const SIDE_MIN: usize = 64;
/// The most samples along one side that are averaged into one pixel where a picture is made smaller.
const SAMPLES_MAX: usize = 6;

/// A picture in memory, RGB with 8 bits a channel. Its pixels are overwritten when it is dropped.
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Drop for Picture {
    fn drop(&mut self) {
        self.rgb.zeroize();
    }
}

/// Where a pixel of a patch lies in the picture: `(a·u − b·v + x, b·u + a·v + y)`, a turn, a scale and a shift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Similarity {
    pub(crate) a: f32,
    pub(crate) b: f32,
    pub(crate) x: f32,
    pub(crate) y: f32,
}

impl Similarity {
    pub(crate) fn of(&self, (u, v): (f32, f32)) -> (f32, f32) {
        (self.a * u - self.b * v + self.x, self.b * u + self.a * v + self.y)
    }

    /// The one that takes `from` to `to` with the least sum of squares (Umeyama 1991, in two dimensions without reflection).
    pub(crate) fn fit(from: &[(f32, f32)], to: &[(f32, f32)]) -> Self {
        let n = from.len() as f32;
        let mean = |points: &[(f32, f32)]| {
            let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
            (x / n, y / n)
        };
        let (from_mean, to_mean) = (mean(from), mean(to));
        let (mut dot, mut cross, mut size) = (0.0, 0.0, f32::EPSILON);
        for (p, q) in from.iter().zip(to) {
            let (px, py, qx, qy) = (p.0 - from_mean.0, p.1 - from_mean.1, q.0 - to_mean.0, q.1 - to_mean.1);
            dot += px * qx + py * qy;
            cross += px * qy - py * qx;
            size += px * px + py * py;
        }
        let (a, b) = (dot / size, cross / size);
        let turned = (a * from_mean.0 - b * from_mean.1, b * from_mean.0 + a * from_mean.1);
        Self { a, b, x: to_mean.0 - turned.0, y: to_mean.1 - turned.1 }
    }
}

impl Picture {
    /// Decodes a JPEG or PNG file.
    ///
    /// # Errors
    /// [`FaceError::Unreadable`] where it is neither, broken, or larger than 4 MiB or 16 megapixels.
    pub fn decode(bytes: &[u8]) -> Result<Self, FaceError> {
        let picture = match bytes {
            _ if bytes.len() > PICTURE_BYTES_MAX => None,
            [0xff, 0xd8, 0xff, ..] => jpeg(bytes),
            [0x89, b'P', b'N', b'G', ..] => png(bytes),
            _ => None,
        };
        picture.filter(|p| p.width.min(p.height) >= SIDE_MIN).ok_or(FaceError::Unreadable)
    }

    /// A picture of pixels that are already there, row by row from the top, three bytes each.
    pub fn of_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Option<Self> {
        let fits = fits(width, height) && rgb.len() == width * height * 3;
        fits.then_some(Self { width, height, rgb })
    }

    /// Its width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, row by row from the top, three bytes each.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.rgb
    }

    /// The red, green and blue of a pixel; black outside the picture.
    pub fn pixel(&self, x: isize, y: isize) -> [u8; 3] {
        let inside = (0..self.width as isize).contains(&x) && (0..self.height as isize).contains(&y);
        if !inside {
            return [0; 3];
        }
        let at = (y as usize * self.width + x as usize) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// The picture turned by quarters of a full turn, clockwise.
    pub fn turned(&self, quarters: u8) -> Self {
        let (w, h) = (self.width, self.height);
        let (width, height) = if quarters.is_multiple_of(2) { (w, h) } else { (h, w) };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..height {
            for x in 0..width {
                let (from_x, from_y) = match quarters % 4 {
                    0 => (x, y),
                    1 => (y, h - 1 - x),
                    2 => (w - 1 - x, h - 1 - y),
                    _ => (w - 1 - y, x),
                };
                rgb.extend(self.pixel(from_x as isize, from_y as isize));
            }
        }
        Self { width, height, rgb }
    }

    fn bilinear(&self, x: f32, y: f32) -> [f32; 3] {
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let (x, y) = (left as isize, top as isize);
        let corners = [
            (0, 0, (1.0 - fx) * (1.0 - fy)),
            (1, 0, fx * (1.0 - fy)),
            (0, 1, (1.0 - fx) * fy),
            (1, 1, fx * fy),
        ];
        let mut sum = [0.0; 3];
        for (dx, dy, weight) in corners {
            for (sum, value) in sum.iter_mut().zip(self.pixel(x + dx, y + dy)) {
                *sum += weight * f32::from(value);
            }
        }
        sum
    }

    /// A square of `size` pixels a side, as planes of red, green and blue from 0 to 255.
    pub(crate) fn patch(&self, size: usize, map: Similarity) -> Vec<f32> {
        let scale = map.a.hypot(map.b);
        let samples = (scale.ceil() as usize).clamp(1, SAMPLES_MAX);
        let share = 1.0 / (samples * samples) as f32;
        let mut planes = vec![0.0; 3 * size * size];
        for v in 0..size {
            for u in 0..size {
                let mut sum = [0.0; 3];
                for sample in 0..samples * samples {
                    let offset = |i: usize| (i as f32 + 0.5) / samples as f32;
                    let at = (u as f32 + offset(sample % samples), v as f32 + offset(sample / samples));
                    let (x, y) = map.of(at);
                    let one = self.bilinear(x - 0.5, y - 0.5);
                    for (sum, one) in sum.iter_mut().zip(one) {
                        *sum += one * share;
                    }
                }
                for (plane, value) in sum.into_iter().enumerate() {
                    planes[(plane * size + v) * size + u] = value;
                }
            }
        }
        planes
    }
}

/// How bright a pixel is, 0 to 255 (ITU-R BT.601).
pub(crate) fn brightness([r, g, b]: [u8; 3]) -> f32 {
    0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)
}

fn fits(width: usize, height: usize) -> bool {
    width.max(height) <= SIDE_MAX && width.saturating_mul(height) <= PIXELS_MAX
}

fn jpeg(bytes: &[u8]) -> Option<Picture> {
    let options = DecoderOptions::default()
        .set_max_width(SIDE_MAX)
        .set_max_height(SIDE_MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().ok()?;
    let info = decoder.info()?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    // what the header promises is asked before memory is taken for it
    fits(width, height).then_some(())?;
    Picture::of_rgb(width, height, decoder.decode().ok()?)
}

fn png(bytes: &[u8]) -> Option<Picture> {
    let limits = png::Limits { bytes: PIXELS_MAX * 8 };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    fits(width, height).then_some(())?;
    let mut raw = vec![0; reader.output_buffer_size()?];
    let frame = reader.next_frame(&mut raw).ok()?;
    raw.truncate(frame.buffer_size());
    let rgb = match frame.color_type {
        png::ColorType::Rgb => raw,
        png::ColorType::Rgba => raw.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        png::ColorType::Grayscale => raw.iter().flat_map(|p| [*p; 3]).collect(),
        png::ColorType::GrayscaleAlpha => raw.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        png::ColorType::Indexed => return None,
    };
    Picture::of_rgb(width, height, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similarity_is_found_again() {
        let known = Similarity { a: 1.5, b: -0.4, x: 12.0, y: -3.0 };
        let from = [(0.0, 0.0), (10.0, 1.0), (4.0, 9.0), (-3.0, 2.0)];
        let to = from.map(|p| known.of(p));
        let found = Similarity::fit(&from, &to);
        for (one, other) in [(found.a, known.a), (found.b, known.b), (found.x, known.x), (found.y, known.y)] {
            assert!((one - other).abs() < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn four_quarters_are_a_full_turn() {
        let rgb: Vec<u8> = (0..70 * 80 * 3).map(|i| (i % 251) as u8).collect();
        let picture = Picture::of_rgb(70, 80, rgb.clone()).unwrap();
        assert_eq!(picture.turned(1).turned(1).turned(2).rgb, rgb);
        assert_eq!(picture.turned(1).pixel(79, 0), picture.pixel(0, 0));
        assert_eq!(picture.turned(3).turned(1).rgb, rgb);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let bomb = {
            // a PNG whose header promises 100,000 pixels a side
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 100, 100);
            encoder.set_color(png::ColorType::Rgb);
            encoder.write_header().unwrap().write_image_data(&[7; 30_000]).unwrap();
            bytes[16..20].copy_from_slice(&100_000u32.to_be_bytes());
            bytes
        };
        for bytes in
            [&b""[..], b"\xff\xd8\xff", b"\x89PNG", b"GIF89a", &bomb, &vec![0xff; PICTURE_BYTES_MAX + 1]]
        {
            assert!(matches!(Picture::decode(bytes), Err(FaceError::Unreadable)));
        }
    }

    #[test]
    fn a_png_of_any_colours_is_read() {
        for (color, channels) in
            [(png::ColorType::Rgb, 3), (png::ColorType::Rgba, 4), (png::ColorType::Grayscale, 1)]
        {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
            encoder.set_color(color);
            encoder.write_header().unwrap().write_image_data(&vec![9; 64 * 64 * channels]).unwrap();
            assert_eq!(Picture::decode(&bytes).unwrap().pixel(5, 5), [9; 3]);
        }
    }
}
