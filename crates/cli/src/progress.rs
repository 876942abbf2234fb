//! How far long work has come: a bar on stderr if that is a terminal, nothing else.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// How often a bar that has no news is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Records that are read while stdout is no terminal; where it is one, the records themselves show it.
pub(crate) fn of_records(total: Option<u64>) -> ProgressBar {
    let target =
        if std::io::stdout().is_terminal() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let template = match total {
        Some(_) => "{bar:32} {human_pos} of {human_len} records, {per_sec}, {eta} left",
        None => "{spinner} {human_pos} records, {per_sec}",
    };
    bar(total, target, template)
}

/// Bytes of input that are taken; there is nothing to show while they are typed.
pub(crate) fn of_input(total: Option<u64>) -> ProgressBar {
    let typed = total.is_none() && std::io::stdin().is_terminal();
    let target = if typed { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let template = match total {
        Some(_) => "{bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        None => "{spinner} {binary_bytes}, {binary_bytes_per_sec}",
    };
    bar(total, target, template)
}

/// Bytes of a store that are read; how many there are is said later.
pub(crate) fn of_bytes() -> ProgressBar {
    let template = "{bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    bar(Some(0), ProgressDrawTarget::stderr(), template)
}

fn bar(total: Option<u64>, target: ProgressDrawTarget, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, target).with_finish(ProgressFinish::AndClear);
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
    if !bar.is_hidden() {
        // Work that ends before the first tick is shown too.
        bar.tick();
        bar.enable_steady_tick(TICK);
    }
    bar
}
