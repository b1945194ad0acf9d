//! Memory over time, and the line through it.

/// A straight line through samples, with the error of its slope.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub slope: f64,
    pub error: f64,
}

/// How many blocks the samples are put into.
const BLOCKS: usize = 16;

impl Line {
    /// Least squares through the means of blocks: neighbouring samples are not independent of each other, and taken one
    /// by one they would make the error look smaller than it is. None with fewer than two samples a block.
    pub fn through(samples: &[(f64, f64)]) -> Option<Self> {
        let size = samples.len() / BLOCKS;
        if size < 2 {
            return None;
        }
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / size as f64;
        let blocks: Vec<(f64, f64)> = samples
            .chunks_exact(size)
            .map(|block| (mean(&mut block.iter().map(|at| at.0)), mean(&mut block.iter().map(|at| at.1))))
            .collect();
        let n = blocks.len() as f64;
        let x_mean = blocks.iter().map(|at| at.0).sum::<f64>() / n;
        let y_mean = blocks.iter().map(|at| at.1).sum::<f64>() / n;
        let spread: f64 = blocks.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
        let slope = blocks.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
        let rest: f64 = blocks.iter().map(|(x, y)| (y - y_mean - slope * (x - x_mean)).powi(2)).sum();
        Some(Self { slope, error: (rest / (n - 2.0) / spread).sqrt() })
    }
}
