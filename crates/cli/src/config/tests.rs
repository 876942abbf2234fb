//! What is put together from a file, variables and flags, and what is told of what is wrong with them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::*;
use lakebed_broker::config::TABLE;

fn write(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("lakebed.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn flags(pairs: &[(&str, &str)]) -> Vec<(&'static Setting, String)> {
    pairs.iter().map(|(name, value)| (Setting::named(name).unwrap(), (*value).to_owned())).collect()
}

fn told(mode: Mode, sources: &Sources) -> Vec<String> {
    load(mode, sources).problems.iter().map(Problem::to_string).collect()
}

/// What is told of a file.
fn told_of(text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = Some(write(directory.path(), text));
    let begin = format!("{}:", directory.path().join("lakebed.toml").display());
    let problems = told(Mode::Dev, &Sources { file, ..Sources::default() });
    problems.iter().map(|problem| problem.replace(&begin, "")).collect()
}

#[test]
fn a_flag_goes_before_a_variable_and_that_before_the_file_and_that_before_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let text = "memory = '100MiB'\nflush_bytes = 1048576\n\n  advertise = 'file:1'\n";
    let sources = Sources {
        file: Some(write(directory.path(), text)),
        variables: variables(&[("LAKEBED_MEMORY", "200MiB"), ("LAKEBED_ADVERTISE", "variable:1"), ("PATH", "/")]),
        flags: flags(&[("memory", "300MiB")]),
    };
    let loaded = load(Mode::Dev, &sources);
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.config.memory_bytes, 300 << 20);
    assert_eq!(loaded.config.flush_bytes, 1 << 20);
    assert_eq!(loaded.config.advertise.as_deref(), Some("variable:1"));
    assert_eq!(loaded.config.default_partitions, 4, "the default of dev");
    let origins = ["memory", "advertise", "flush_bytes", "store"].map(|name| loaded.origin(name).to_string());
    let file = format!("{}:2:15", directory.path().join("lakebed.toml").display());
    assert_eq!(origins, ["flag --memory", "variable LAKEBED_ADVERTISE", &file, "default"]);
}

#[test]
fn every_setting_can_be_given_in_each_way() {
    let directory = tempfile::tempdir().unwrap();
    for setting in TABLE {
        let given = setting.value(&Config::of(Mode::Dev)).to_string();
        let quoted = if matches!(given.as_str(), "true" | "false") || given.parse::<u64>().is_ok() {
            given.clone()
        } else {
            format!("{given:?}")
        };
        let file = Some(write(directory.path(), &format!("{} = {quoted}\n", setting.name)));
        let ways = [
            Sources { file, ..Sources::default() },
            Sources { variables: variables(&[(&setting.variable(), &given)]), ..Sources::default() },
            Sources { flags: flags(&[(setting.name, &given)]), ..Sources::default() },
        ];
        for sources in ways {
            let loaded = load(Mode::Dev, &sources);
            assert_eq!(loaded.problems, [], "{}", setting.name);
            assert_ne!(loaded.origin(setting.name), &Origin::Default, "{}", setting.name);
            assert_eq!(loaded.config, Config::of(Mode::Dev), "{}", setting.name);
        }
    }
}

#[test]
fn five_mistakes_in_a_file_are_told_at_once_with_their_places() {
    let text = "memry = '1GiB'\nflush_interval = 250\ndefault_partitions = 0\n\n  auto_create_topics = 'yes'\nflush_bytes = '8MBs'\n";
    let expected = [
        "1:1: memry is no setting: did you mean memory?",
        "2:18: flush_interval = 250: needs a unit, such as 250ms, 250s or 250m",
        "3:22: default_partitions = 0: must be 1 to 100000",
        "5:24: auto_create_topics = 'yes': must be true or false, not a text in quotes",
        "6:15: flush_bytes = 8MBs: has the unknown unit \"MBs\": use B, KiB, MiB or GiB",
    ];
    assert_eq!(told_of(text), expected);
}

#[test]
fn problems_of_all_sources_are_told_together() {
    let directory = tempfile::tempdir().unwrap();
    let sources = Sources {
        file: Some(write(directory.path(), "memory = true\n")),
        variables: variables(&[("LAKEBED_MEMROY", "1GiB"), ("LAKEBED_CONNECTIONS_MAX", "many")]),
        flags: flags(&[("flush_interval", "10y")]),
    };
    let problems = told(Mode::Serve, &sources);
    assert_eq!(problems.len(), 5, "{problems:#?}");
    assert!(
        problems[0].ends_with("lakebed.toml:1:10: memory = true: must be a size, 64MiB to 16TiB, not a boolean"),
        "{}",
        problems[0]
    );
    assert_eq!(problems[1], "LAKEBED_CONNECTIONS_MAX = many: must be a whole number");
    assert_eq!(problems[2], "LAKEBED_MEMROY is no setting: did you mean LAKEBED_MEMORY?");
    let units = "has the unknown unit \"y\": use ms, s, m, h or d";
    assert_eq!(problems[3], format!("--flush-interval = 10y: {units}"));
    assert_eq!(problems[4], "store must be given with --store, LAKEBED_STORE or a file");
}

#[test]
fn a_file_that_is_no_toml_is_told_with_the_place_and_the_rest_is_read() {
    let problems = told_of("memory = \nflush_interval = '1ms'\nstore == 'x'\nlisten = 'nowhere'\n");
    assert!(
        problems.iter().any(|problem| problem.starts_with("1:") && problem.contains("is not TOML")),
        "{problems:#?}"
    );
    assert!(problems.iter().any(|problem| problem.starts_with("3:")), "{problems:#?}");
    assert!(problems.contains(&"4:10: listen = nowhere: must be HOST:PORT".to_owned()), "{problems:#?}");
    assert!(told_of("memory = '1GiB'\nmemory = '2GiB'\n")[0].starts_with("2:1: is not TOML: duplicate key"));
}

#[test]
fn a_table_or_a_list_is_no_value() {
    let problems = told_of("memory = ['1GiB']\n[kafka]\nlisten = 'h:1'\n");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("not a list"), "{problems:#?}");
    assert!(problems[1].starts_with("2:2: kafka is no setting: there are no tables"), "{problems:#?}");
}

#[test]
fn a_file_that_can_not_be_read_is_a_problem_of_whoever_named_it() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let of_flag = told(Mode::Dev, &Sources { file: Some(missing.clone()), ..Sources::default() });
    assert!(of_flag[0].starts_with("--config ") && of_flag[0].contains("missing.toml can't be read"), "{of_flag:?}");
    let named = vec![("LAKEBED_CONFIG".into(), missing.into_os_string())];
    let of_variable = told(Mode::Dev, &Sources { variables: named, ..Sources::default() });
    assert!(of_variable[0].starts_with("LAKEBED_CONFIG "), "{of_variable:?}");
    let no_text = directory.path().join("binary.toml");
    std::fs::write(&no_text, b"memory = '1GiB'\n\xff").unwrap();
    let of_bytes = told(Mode::Dev, &Sources { file: Some(no_text), ..Sources::default() });
    assert!(of_bytes[0].contains("line 2 is not UTF-8"), "{of_bytes:?}");
    let huge = directory.path().join("huge.toml");
    std::fs::write(&huge, vec![b'#'; (1 << 20) + 1]).unwrap();
    let of_size = told(Mode::Dev, &Sources { file: Some(huge), ..Sources::default() });
    assert!(of_size[0].contains("more than 1 MiB"), "{of_size:?}");
}

#[test]
fn variables_of_others_are_left_alone_and_all_other_unknown_ones_are_not() {
    let others = [
        "LAKEBED_SERVER",
        "LAKEBED_PROFILE_DIR",
        "LAKEBED_TEST_ANYTHING",
        "LAKEBED_SERVICE_HOST",
        "LAKEBED_SERVICE_PORT_KAFKA",
        "LAKEBED_PORT",
        "LAKEBED_PORT_9092_TCP",
        "LAKEBED_PORT_9092_TCP_ADDR",
        "LAKEBED_HEADLESS_SERVICE_PORT",
    ];
    for name in others {
        assert_eq!(
            told(Mode::Dev, &Sources { variables: variables(&[(name, "x")]), ..Sources::default() }),
            [""; 0],
            "{name}"
        );
    }
    for name in ["LAKEBED_PORTS", "LAKEBED_", "LAKEBED_memory", "LAKEBED_PORT_KAFKA"] {
        let sources = Sources { variables: variables(&[(name, "x")]), ..Sources::default() };
        assert_eq!(told(Mode::Dev, &sources).len(), 1, "{name}");
    }
    for setting in TABLE {
        assert!(
            !variables::is_of_kubernetes(&setting.variable()),
            "{} would be taken for one of Kubernetes",
            setting.name
        );
    }
    let empty =
        Sources { variables: variables(&[("LAKEBED_MEMORY", ""), ("LAKEBED_CONFIG", "")]), ..Sources::default() };
    assert_eq!(told(Mode::Dev, &empty), [""; 0], "empty is not set");
    let bytes = vec![("LAKEBED_MEMORY".into(), OsString::from_vec(vec![0xff]))];
    assert!(told(Mode::Dev, &Sources { variables: bytes, ..Sources::default() })[0].contains("is not UTF-8"));
}

#[test]
fn no_secret_of_a_store_is_told() {
    let store = "s3://id:hush@bucket/prefix?sig=hush";
    let sources = Sources { flags: flags(&[("store", store)]), ..Sources::default() };
    let loaded = load(Mode::Serve, &sources);
    let setting = Setting::named("store").unwrap();
    let shown = [
        format!("{loaded:?}"),
        setting.value(&loaded.config).to_string(),
        Problem::new(Origin::Default, "is wrong").of("store", Problem::shown(setting, store)).to_string(),
        told_of("store = ['s3://id:hush@bucket']\n").concat(),
        told_of("store = { url = 's3://id:hush@bucket' }\n").concat(),
    ];
    for text in shown {
        assert!(!text.contains("hush"), "{text}");
    }
    assert_eq!(loaded.config.store.expose(), store);
}

#[test]
fn what_a_terminal_would_take_for_an_order_is_spelled_out_and_cut_off() {
    let flags = flags(&[("advertise", "\u{1b}[31m\n")]);
    let problems = told(Mode::Dev, &Sources { flags, ..Sources::default() });
    assert_eq!(problems, ["--advertise = \\u{1b}[31m\\n: must be HOST:PORT"]);
    let long = told_of(&format!("memory = '{}'\n", "x".repeat(10_000)));
    assert!(long[0].len() < 200 && long[0].contains("…"), "{long:?}");
}

#[test]
fn names_that_are_near_are_found() {
    for (written, meant) in [
        ("memry", "memory"),
        ("flush-interval", "flush_interval"),
        ("flush_interval_ms", "flush_interval"),
        ("max_connections", "connections_max"),
        ("http_listen", "listen"),
        ("STORE", "store"),
    ] {
        let problem = Problem::unknown(Origin::Default, written, |setting| setting.name.to_owned());
        assert_eq!(problem.hint, Some(format!("did you mean {meant}?")), "{written}");
    }
    let far = Problem::unknown(Origin::Default, "xyzzy", |setting| setting.name.to_owned());
    assert_eq!(far.hint, None);
}

#[test]
fn the_template_is_a_file_that_changes_nothing_and_names_every_setting() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [Mode::Serve, Mode::Dev] {
        let template = show::template(mode);
        let load_text =
            |text: &str| load(mode, &Sources { file: Some(write(directory.path(), text)), ..Sources::default() });
        let untouched = load_text(&template);
        assert_eq!(untouched.config, Config::of(mode));
        // Prose has a space behind its #.
        let set: String = template
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
            .collect();
        let mut set = load_text(&set);
        assert_eq!(set.problems, [], "{template}");
        for setting in TABLE.iter().filter(|setting| !setting.for_tests) {
            assert!(matches!(set.origin(setting.name), Origin::File { .. }), "{} is missing", setting.name);
        }
        if mode == Mode::Serve {
            assert_eq!(set.config.store.expose(), "s3://bucket/prefix", "an example");
            set.config.store = "".into();
        }
        assert_eq!(set.config, Config::of(mode), "every value is its default");
    }
}

#[test]
fn the_reference_in_the_documentation_is_the_one_of_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == reference(), "run `lakebed docs configuration > docs/configuration.md`");
}
