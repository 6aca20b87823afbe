//! Charts of a report, as SVG. The background is always white, so that they can be read on a dark page too.

use std::{ops::Range, path::Path};

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

const WIDTH: u32 = 860;
const FONT: &str = "system-ui, sans-serif";
const INK: RGBColor = RGBColor(51, 56, 66);
const FAINT: RGBColor = RGBColor(222, 225, 230);
/// Colours that people with colour blindness can distinguish (Okabe and Ito, "Color Universal Design", 2008), and a
/// grey.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(240, 228, 66),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Horizontal bars in groups: one group per item, one bar per series.
#[derive(Debug)]
pub struct Bars<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub series: &'a [&'a str],
    /// The name of each group, with a value for each series.
    pub groups: Vec<(String, Vec<f64>)>,
}

/// One curve.
#[derive(Debug)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Curves over one axis. The vertical axis is logarithmic.
#[derive(Debug)]
pub struct Curves<'a> {
    pub title: &'a str,
    pub across: &'a str,
    pub up: &'a str,
    pub curves: Vec<Curve>,
}

fn area<'a>(path: &'a Path, height: u32, title: &str) -> Area<'a> {
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let style = (FONT, 17).into_font().color(&INK);
    area.draw(&Text::new(title.to_owned(), (16, 14), style))
        .unwrap();
    area.margin(44, 12, 12, 24)
}

/// Three significant digits, without meaningless fractions.
fn rounded(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A label of an axis.
fn mark(value: f64) -> String {
    let tenths = (value * 10.0).round() / 10.0;
    format!("{tenths}")
}

impl Bars<'_> {
    /// # Panics
    /// When the file cannot be written.
    pub fn draw(&self, path: &Path) {
        let each = self.series.len();
        let rows = self.groups.len() * (each + 1);
        let area = area(path, 100 + 17 * u32::try_from(rows).unwrap(), self.title);
        let values = self.groups.iter().flat_map(|(_, values)| values);
        let most = values.copied().fold(f64::MIN_POSITIVE, f64::max);
        let longest = self.groups.iter().map(|(name, _)| name.len()).max();
        let names = 24 + 7 * i32::try_from(longest.unwrap_or_default()).unwrap();
        let mut chart = ChartBuilder::on(&area)
            .x_label_area_size(44)
            .y_label_area_size(names)
            // Leaves room for the figure after the longest bar.
            .build_cartesian_2d(0.0..most * 1.12, 0.0..rows as f64)
            .unwrap();
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .y_labels(0)
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(FAINT)
            .x_desc(self.unit)
            .x_label_formatter(&|value| mark(*value))
            .label_style((FONT, 13).into_font().color(&INK))
            .draw()
            .unwrap();
        let small = (FONT, 12).into_font().color(&INK);
        let behind = small.clone().pos(Pos::new(HPos::Left, VPos::Center));
        let before = small.pos(Pos::new(HPos::Right, VPos::Center));
        for (number, series) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let bar = |group: usize| {
                let top = rows as f64 - (group * (each + 1) + number) as f64 - 0.5;
                (top - 0.85)..top
            };
            let bars = self.groups.iter().enumerate().map(|(group, (_, values))| {
                let Range { start, end } = bar(group);
                Rectangle::new([(0.0, start), (values[number], end)], colour.filled())
            });
            chart
                .draw_series(bars)
                .unwrap()
                .label(*series)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled())
                });
            for (group, (_, values)) in self.groups.iter().enumerate() {
                let Range { start, end } = bar(group);
                let place = (values[number] + most * 0.006, f64::midpoint(start, end));
                let figure = Text::new(rounded(values[number]), place, behind.clone());
                chart.draw_series([figure]).unwrap();
            }
        }
        for (group, (name, _)) in self.groups.iter().enumerate() {
            let middle = rows as f64 - (group * (each + 1)) as f64 - 0.5 - each as f64 / 2.0;
            let (x, y) = chart.backend_coord(&(0.0, middle));
            let (left, top) = area.get_base_pixel();
            let place = (x - left - 8, y - top);
            area.draw(&Text::new(name.clone(), place, before.clone()))
                .unwrap();
        }
        if each > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .label_font((FONT, 13).into_font().color(&INK))
                .background_style(WHITE.mix(0.85))
                .draw()
                .unwrap();
        }
        area.present().unwrap();
    }
}

impl Curves<'_> {
    /// # Panics
    /// When the file cannot be written.
    pub fn draw(&self, path: &Path) {
        let area = area(path, 420, self.title);
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let widest = points().map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max);
        let highest = points().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
        let lowest = points().map(|(_, y)| *y).fold(highest, f64::min);
        let mut chart = ChartBuilder::on(&area)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(
                0.0..widest * 1.05,
                (lowest / 1.5..highest * 1.5).log_scale(),
            )
            .unwrap();
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(FAINT)
            .x_desc(self.across)
            .x_label_formatter(&|value| mark(*value))
            .y_desc(self.up)
            .y_label_formatter(&|value| rounded(*value))
            .label_style((FONT, 13).into_font().color(&INK))
            .draw()
            .unwrap();
        for (number, Curve { name, points }) in self.curves.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line.point_size(3))
                .unwrap()
                .label(name.as_str())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font((FONT, 13).into_font().color(&INK))
            .background_style(WHITE.mix(0.85))
            .draw()
            .unwrap();
        area.present().unwrap();
    }
}
