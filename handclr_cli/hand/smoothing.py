"""A hand's movement filtered over time, without lag."""

from __future__ import annotations

import numpy as np

# Of Savitzky and Golay's filter (Analytical Chemistry 36, 1964): the seconds that a parabola is
# fitted to. tests/benchmarks/smoothing.py measures jitter and error with others; one of half a
# second flattens quick signs.
WINDOW_S = 0.3
_DEGREE = 2
# A parabola through fewer values filters little; at low rates more would flatten what is quick.
_LEAST, _LONGEST_S = 5, 0.5
# A hand that was not seen for longer begins anew: what it did meanwhile is not made up.
LONGEST_GAP_S = 0.25
# No camera takes its frames sooner one after the other.
_SOONEST_S = 5e-5
# Where times are very uneven: so many steps for each value, at the most.
_FINEST = 16
# Images have no times; as many of them are a second.
IMAGES_PER_S = 30.0


def smooth(values: np.ndarray, times_s: np.ndarray, window_s: float = WINDOW_S) -> np.ndarray:
    """Filter values (T, ...) at rising times (T,) by Savitzky and Golay's method, the same shape.

    Times need not be evenly spaced: gaps up to LONGEST_GAP_S are filled by straight lines while the
    filter runs, and longer ones separate stretches that are filtered alone. A stretch shorter than
    the window is fitted as far as it goes; one of fewer than five values, or of fewer than eight a
    second, stays as it is.
    """
    values, times_s = np.asarray(values, np.float64), np.asarray(times_s, np.float64)
    if len(values) < 2:
        return values
    step = float(np.median(np.diff(times_s)))
    breaks = np.flatnonzero(np.diff(times_s) > max(LONGEST_GAP_S, 1.5 * step)) + 1
    parts = zip(np.split(values, breaks), np.split(times_s, breaks), strict=True)
    return np.concatenate([_smooth_stretch(part, when, window_s) for part, when in parts])


def _smooth_stretch(values: np.ndarray, times_s: np.ndarray, window_s: float) -> np.ndarray:
    from scipy.interpolate import make_interp_spline
    from scipy.signal import savgol_filter

    distinct = np.flatnonzero(np.diff(times_s, prepend=-np.inf) > _SOONEST_S)
    values_at, at = values[distinct].reshape(len(distinct), -1), times_s[distinct]
    if len(at) < _LEAST:
        return values
    step = float(np.median(np.diff(at)))
    count = 1 + round(min((at[-1] - at[0]) / step, _FINEST * len(at)))
    even, step = np.linspace(at[0], at[-1], count, retstep=True)
    if (_LEAST - 1) * step > _LONGEST_S:
        return values
    window = max(2 * round((window_s / step - 1) / 2) + 1, _LEAST)
    window = min(window, count - 1 + count % 2)
    line = make_interp_spline(at, values_at, k=1)
    filtered = savgol_filter(line(even), window, _DEGREE, axis=0, mode="interp")
    return make_interp_spline(even, filtered, k=1)(times_s).reshape(values.shape)
