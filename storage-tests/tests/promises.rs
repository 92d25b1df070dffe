//! The table of faults in storage-tests/README.md names tests that exist: a promise whose test was renamed or deleted is
//! found here.

use std::fs;

use storage_tests::readme::repository;

/// A row of the table: what it promises, and the tests that show it, as (file, function).
struct Promise {
    fault: String,
    tests: Vec<(String, String)>,
}

/// The words in backquotes of a cell, in order.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A path ends the row's last file and begins the next; every other quoted word is a test in it.
fn tests_of(cell: &str) -> Vec<(String, String)> {
    let mut file = "";
    let mut tests = Vec::new();
    for word in quoted(cell) {
        if word.contains('/') {
            file = word;
        } else {
            tests.push((file.to_owned(), word.to_owned()));
        }
    }
    tests
}

/// The rows of the table below the heading "Promises".
fn promises(markdown: &str) -> Vec<Promise> {
    let section = markdown.split("\n## ").find(|section| section.starts_with("Promises")).unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let promise = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [fault, _, tests] = cells.as_slice() else { panic!("a row with {} cells: {row}", cells.len()) };
        Promise { fault: fault.trim().to_owned(), tests: tests_of(tests) }
    };
    rows.map(promise).collect()
}

/// Whether `source` has a test function of that name.
fn has_test(source: &str, name: &str) -> bool {
    let declaration = format!("fn {name}(");
    source.split_once(&declaration).is_some_and(|(before, _)| {
        let attributes = before.rsplit("\n\n").next().unwrap_or_default();
        attributes.contains("test]") || attributes.contains("::test(") || attributes.contains("#[test")
    })
}

#[test]
fn every_promise_is_shown_by_tests_that_exist() {
    let readme = fs::read_to_string(repository().join("storage-tests/README.md")).expect("the README");
    let promises = promises(&readme);
    assert!(promises.len() >= 17, "the table has {} rows", promises.len());
    let mut missing = Vec::new();
    for Promise { fault, tests } in promises {
        if tests.is_empty() {
            missing.push(format!("{fault}: no test"));
        }
        for (file, name) in tests {
            let source = fs::read_to_string(repository().join(&file)).unwrap_or_default();
            if !has_test(&source, &name) {
                missing.push(format!("{fault}: {file} has no test {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    let source = "#[test]\nfn one() {}\n\nfn helper() {}\n\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn two() {}\n";
    assert!(has_test(source, "one") && has_test(source, "two"));
    assert!(!has_test(source, "helper") && !has_test(source, "three"));
    assert_eq!(
        tests_of(" `x/a.rs`: `one`, `two`; `x/b.rs`: `three` "),
        [("x/a.rs", "one"), ("x/a.rs", "two"), ("x/b.rs", "three")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
}
