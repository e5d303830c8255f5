"""Effects of what was randomised: arithmetic by hand, closed formulas, and what may not be called an effect."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import influent
from influent.evaluation.least_squares import fit_coefficient

SIX = {"user_id": list("abcdef"), "exposed": [1, 1, 1, 0, 0, 0], "outcome": [5.0, 7.0, 9.0, 1.0, 2.0, 3.0]}


def estimate(columns, **arguments):
    return influent.estimate_effect(pa.table(columns), **{"probability": 0.5, "n_permutations": 200} | arguments)


def drawn(seed, n_clusters=8, size=5, **more):
    """A random table of clusters of one size, half of them exposed."""
    rng = np.random.default_rng(seed)
    n = n_clusters * size
    cluster = np.repeat(np.arange(n_clusters), size)
    exposed = rng.permutation(np.arange(n_clusters) % 2)[cluster]
    outcome = rng.normal(size=n) + rng.normal(size=n_clusters)[cluster] + exposed
    columns = {"user_id": np.arange(n), "village": cluster, "exposed": exposed, "outcome": outcome}
    return columns | {"age": rng.normal(size=n), "before": outcome - exposed + rng.normal(size=n)} | more


def test_two_arms_by_hand():
    report = estimate(SIX)
    # Means 7 and 2, variances 4 and 1, three people each: Neyman's s₁²/n₁ + s₀²/n₀.
    assert report.effect.mean == pytest.approx(7 - 2)
    assert report.standard_error == pytest.approx(math.sqrt(4 / 3 + 1 / 3))
    assert report.degrees_of_freedom == pytest.approx(4)
    assert report.effect.high == pytest.approx(5 + 2.776445 * math.sqrt(5 / 3))
    assert report.without_exposure == pytest.approx(2)
    assert (report.n_exposed, report.n_unexposed, report.n_draws_exposed, report.n_draws_unexposed) == (3, 3, 3, 3)


def test_known_chances_weigh_each_row_by_what_they_made_of_it():
    # Weights of the exposed 1 / (1/2), 1 / (1/4), of the others 1 / (1 − 1/2), 1 / (1 − 1/4).
    report = estimate(
        {
            "user_id": list("abcd"),
            "exposed": [True, True, False, False],
            "outcome": [6.0, 3.0, 2.0, 5.0],
            "chance": [0.5, 0.25, 0.5, 0.25],
        },
        probability="chance",
    )
    assert report.effect.mean == pytest.approx((2 * 6 + 4 * 3) / 6 - (2 * 2 + 4 / 3 * 5) / (2 + 4 / 3))
    assert report.naive.mean == pytest.approx(4.5 - 3.5)


def test_one_chance_for_all_is_the_same_as_a_number_or_as_a_column():
    column = estimate(SIX | {"chance": [1 / 3] * 6}, probability="chance")
    assert estimate(SIX, probability=1 / 3) == estimate(SIX, probability=np.float64(1 / 3)) == column


def test_clusters_of_one_size_are_as_if_each_were_one_row():
    columns = drawn(0)
    by_cluster = estimate(columns, cluster="village")
    means = columns["outcome"].reshape(8, 5).mean(axis=1)
    arms = [means[columns["exposed"][::5] == arm] for arm in (1, 0)]
    assert by_cluster.effect.mean == pytest.approx(arms[0].mean() - arms[1].mean())
    assert by_cluster.standard_error == pytest.approx(math.sqrt(sum(arm.var(ddof=1) / 4 for arm in arms)))
    assert by_cluster.degrees_of_freedom == pytest.approx(2 * 3)


def test_strata_are_compared_within_and_weighed_by_their_size():
    rng = np.random.default_rng(1)
    site, exposed = np.repeat([0, 1], [12, 20]), np.r_[np.arange(12) % 2, np.arange(20) % 2]
    outcome = rng.normal(size=32) + 3 * site + exposed * (1 + site)
    report = estimate({"user_id": np.arange(32), "site": site, "exposed": exposed, "outcome": outcome}, stratum="site")
    arms = {(s, z): outcome[(site == s) & (exposed == z)] for s in (0, 1) for z in (0, 1)}
    shares = {0: 12 / 32, 1: 20 / 32}
    effect = sum(share * (arms[s, 1].mean() - arms[s, 0].mean()) for s, share in shares.items())
    variance = sum(shares[s] ** 2 * arm.var(ddof=1) / len(arm) for (s, _), arm in arms.items())
    assert report.effect.mean == pytest.approx(effect)
    assert report.standard_error == pytest.approx(math.sqrt(variance))


def test_a_covariate_has_a_slope_of_its_own_in_each_arm():
    columns = drawn(2)
    report = estimate(columns, cluster="village", covariates=["age"])
    age, exposed, outcome = columns["age"], columns["exposed"], columns["outcome"]
    # Each arm's own line, read off at the mean age of all.
    lines = [np.polyfit(age[exposed == arm], outcome[exposed == arm], 1) for arm in (1, 0)]
    assert report.effect.mean == pytest.approx(np.polyval(lines[0], age.mean()) - np.polyval(lines[1], age.mean()))
    assert report.rows["without covariates"] == estimate(columns, cluster="village").effect


def test_standard_errors_are_those_of_the_formula_written_out():
    """CR2 with (I − H)^−½ of whole matrices, in place of what keeps them small."""
    rng = np.random.default_rng(3)
    group, weight = np.sort(rng.integers(0, 6, 30)), rng.uniform(1, 3, 30)
    x, y = np.c_[np.ones(30), rng.normal(size=(30, 2))], rng.normal(size=30)
    columns = dict(zip("abc", x.T, strict=True))
    found = fit_coefficient(columns, y, weight, group, "c")
    xw, yw = x * np.sqrt(weight)[:, None], y * np.sqrt(weight)
    bread = np.linalg.inv(xw.T @ xw)
    residual = yw - xw @ bread @ xw.T @ yw
    errors, parts = [], []
    for one in range(6):
        rows = group == one
        values, vectors = np.linalg.eigh(np.eye(rows.sum()) - xw[rows] @ bread @ xw[rows].T)
        adjusted = vectors / np.sqrt(values) @ vectors.T @ xw[rows] @ bread[:, 2]
        errors.append(adjusted @ residual[rows])
        parts.append((np.eye(30) - xw @ bread @ xw.T)[:, rows] @ adjusted)
    covariance = np.array(parts) @ np.array(parts).T
    assert found.value == pytest.approx((bread @ xw.T @ yw)[2])
    assert found.standard_error == pytest.approx(np.linalg.norm(errors))
    assert found.degrees_of_freedom == pytest.approx(np.trace(covariance) ** 2 / (covariance**2).sum())


def test_permutations_come_to_what_can_be_counted():
    # Of the 20 ways to expose 3 of 6, two are as clear: the one that was seen and its opposite.
    report = estimate(SIX, n_permutations=20_000)
    assert report.p_value == pytest.approx(2 / 20, abs=0.01)


def test_whole_clusters_are_permuted():
    # 2 of 4 villages: 6 ways, two of which part low from high villages, however many people they have.
    outcome = np.repeat([10.0, 11.0, 1.0, 2.5], 50) + np.tile(np.linspace(-0.1, 0.1, 50), 4)
    columns = {"user_id": np.arange(200), "village": np.repeat(list("abcd"), 50), "outcome": outcome}
    report = estimate(columns | {"exposed": np.repeat([1, 1, 0, 0], 50)}, cluster="village", n_permutations=6000)
    assert report.p_value == pytest.approx(2 / 6, abs=0.03)


def test_strata_are_permuted_within():
    # Were the two sites mixed, their distance would drown the difference.
    outcome = np.r_[np.arange(10) % 2 + 0.1 * np.arange(10), 100 + np.arange(10) % 2 + 0.1 * np.arange(10)]
    columns = {"user_id": np.arange(20), "site": np.repeat(["x", "y"], 10), "exposed": np.arange(20) % 2}
    assert estimate(columns | {"outcome": outcome}, stratum="site").p_value < 0.05
    assert estimate(columns | {"outcome": outcome}).p_value > 0.5


def test_where_chances_differ_each_is_tossed_anew():
    """What somebody does who is often exposed is no effect: the naive difference is large, the p-value is not."""
    rng = np.random.default_rng(4)
    chance = np.repeat([0.2, 0.8], 200)
    exposed = rng.random(400) < chance
    outcome = 10 * chance + rng.normal(size=400)
    columns = {"user_id": np.arange(400), "exposed": exposed, "outcome": outcome, "chance": chance}
    report = estimate(columns, probability="chance")
    assert report.naive.low > 2
    assert report.effect.low < 0 < report.effect.high
    assert report.p_value > 0.05


def test_only_what_was_randomised_is_called_an_effect():
    with pytest.raises(influent.ConfigError, match=r"nothing says that exposure was randomised.*probability=0\.5"):
        influent.estimate_effect(pa.table(SIX))
    moved = estimate(SIX).sentences()[0]
    assert moved == (
        "Exposure raises outcome by 5.0000 [1.4156, 8.5844]. This is an effect, because exposure was randomised: drawn "
        "once for each user_id, with a chance of 0.5."
    )
    lowered = estimate(SIX | {"exposed": [0, 0, 0, 1, 1, 1]}).sentences()[0]
    assert lowered.startswith("Exposure lowers outcome by 5.0000 [1.4156, 8.5844].")
    flat = estimate(SIX | {"outcome": [1.0, 2, 3, 1, 2, 3]}).sentences()[0]
    assert flat.startswith("No effect of exposure on outcome is shown: ")
    assert "[-2.2670, 2.2670] covers 0; exposure was randomised" in flat


def test_a_placebo_that_fails_takes_the_word_away():
    before = [4.0, 6.0, 8.5, 1.0, 2.0, 3.0]
    said = estimate(SIX | {"before": before}, placebo="before").sentences()
    assert "they differed before exposure too" in said[0]
    assert "This is an effect" not in " ".join(said)
    assert "which does not cover 0" in said[2]
    fine = estimate(SIX | {"before": [1.0, 2.0, 3.0, 1.0, 2.0, 3.5]}, placebo="before")
    assert fine.placebo.mean == pytest.approx(2 - 6.5 / 3)
    assert "This is an effect" in fine.sentences()[0]
    assert "which covers 0, as it should" in fine.sentences()[2]


def test_the_outcome_before_is_no_covariate_of_itself():
    columns = drawn(5)
    both = estimate(columns, cluster="village", covariates=["before"], placebo="before")
    assert both.placebo == estimate(columns, cluster="village", placebo="before").placebo
    assert both.placebo.high > both.placebo.low


def test_one_person_at_many_points_of_time_is_one_draw():
    n, n_times = 40, 9
    rng = np.random.default_rng(6)
    exposed = np.repeat(np.arange(n) % 2, n_times)
    outcome = np.repeat(rng.normal(size=n), n_times) + 0.01 * rng.normal(size=n * n_times)
    columns = {"user_id": np.repeat(np.arange(n), n_times), "wave": np.tile(np.arange(n_times), n)}
    report = estimate(columns | {"exposed": exposed, "outcome": outcome}, period="wave")
    means = outcome.reshape(n, n_times).mean(axis=1)
    assert report.standard_error == pytest.approx(math.sqrt(means[::2].var(ddof=1) / 20 + means[1::2].var(ddof=1) / 20))
    assert (report.n_exposed, report.n_draws_exposed) == (180, 20)
    assert report.naive.high - report.naive.low < (report.effect.high - report.effect.low) / 2


def test_a_path_and_words_for_yes_and_no_do_too(tmp_path):
    pq.write_table(pa.table(SIX), tmp_path / "units.parquet")
    (tmp_path / "units.csv").write_text("user_id,exposed,outcome\na,true,5\nb,yes,7\nc,1,9\nd,false,1\ne,no,2\nf,0,3\n")
    for name in ("units.parquet", "units.csv"):
        report = influent.estimate_effect(tmp_path / name, probability=0.5, n_permutations=200)
        assert report == estimate(SIX)


def test_a_report_is_plain_numbers_and_a_table():
    report = estimate(SIX | {"before": [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]}, placebo="before")
    assert report.to_dict()["rows"]["effect"]["mean"] == pytest.approx(5)
    assert '"p_value"' in report.to_json()
    lines = report.to_markdown().splitlines()
    assert lines[0] == "| outcome | exposed less not exposed |"
    assert [line.split(" |")[0] for line in lines[2:5]] == ["| effect", "| placebo", "| naive difference"]


TWELVE = drawn(7, n_clusters=4, size=3)


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        ({"p": [0.5] * 11 + [0.0]}, {"probability": "p"}, r"1 of 12 rows have no chance of exposure above 0 and below"),
        ({"p": [0.5] * 11 + [None]}, {"probability": "p"}, "the first has nan"),
        ({"p": [1.0] * 12}, {"probability": "p"}, "12 of 12 rows .* nothing was drawn: leave them out"),
        ({"exposed": [1] * 12}, {}, "every user_id is exposed: there is nobody to compare with"),
        ({"exposed": [0] * 12}, {}, "no user_id was exposed. The table needs all for whom"),
        (
            {"exposed": [1] + [0] * 11},
            {},
            "of 12 user_id that were drawn, 1 were exposed. At least two exposed and two",
        ),
        ({"exposed": [1] + [0] * 11}, {"cluster": "village"}, "village '0' has rows that were exposed and rows that"),
        ({"exposed": [1] * 3 + [0] * 9}, {"cluster": "village"}, "of 4 village that were drawn, 1 were exposed"),
        ({"exposed": [2] * 12}, {}, "12 of 12 rows say neither yes nor no in 'exposed'"),
        ({"exposed": [None] + [1] * 11}, {}, "1 of 12 rows say neither yes nor no"),
        ({"outcome": [None, float("nan")] + [1.0] * 10}, {}, "2 of 12 rows have no finite 'outcome': . of 6 exposed"),
        ({"age": [None] + [1.0] * 11}, {"covariates": ["age"]}, "no finite 'age'.*Fill it with the mean"),
        ({"age": [3.0] * 12}, {"covariates": ["age"]}, "covariate 'age' is the same in every row"),
        ({"twice": 2 * TWELVE["age"]}, {"covariates": ["age", "twice"]}, "'twice' follows from"),
        ({}, {"cluster": "village", "covariates": ["age"]}, "1 covariates are too many for 2 draws"),
        ({"user_id": [0, *range(11)]}, {}, "user_id '0' has 2 rows. Name the column that tells them apart"),
        ({"user_id": [0, *range(11)], "w": [0] * 12}, {"period": "w"}, "user_id '0' has 2 rows with 'w' '0'"),
        ({"site": [None] + ["x"] * 11}, {"stratum": "site"}, "1 of 12 rows have no 'site'"),
        ({"site": list("xyxyxyxyxyxy")}, {"stratum": "site", "cluster": "village"}, "lies in more than one 'site'"),
        ({"p": [0.4, 0.5] * 6}, {"probability": "p", "cluster": "village"}, "different chances of exposure, so"),
    ],
)
def test_a_draw_that_cannot_have_been_is_refused(change, arguments, says):
    with pytest.raises(influent.DataError, match=says):
        estimate(TWELVE | change, **arguments)


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        (
            {},
            {"outcome": "outcom"},
            r"no column 'outcom'.*Did you mean 'outcome'\? Name yours with",
        ),
        ({}, {"covariates": ["aeg"]}, "no column 'aeg'.*Did you mean 'age'"),
        ({}, {"unit": "uid"}, "no column 'uid'"),
        ({"age": ["old"] * 12}, {"covariates": ["age"]}, "'age' of the Arrow table holds texts; numbers are needed"),
        ({"age": [[1.0]] * 12}, {"covariates": ["age"]}, "'age' of the Arrow table holds DOUBLE.*numbers are needed"),
        ({"exposed": [[1]] * 12}, {}, "booleans, or 0 and 1, are needed"),
    ],
)
def test_a_column_that_is_not_there_or_no_number_is_named(change, arguments, says):
    with pytest.raises(influent.SchemaError, match=says):
        estimate(TWELVE | change, **arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"probability": 1.0}, r"must be a chance above 0 and below 1.*Got 1\.0"),
        ({"probability": True}, "must be a chance above 0 and below 1"),
        ({"n_permutations": 0}, r"'n_permutations' parameter must be an int in the range \[1, inf"),
        ({"each_period": True}, "name it with period="),
        ({"covariates": ["outcome"]}, "'outcome' is the outcome and cannot also be a covariate"),
        ({"placebo": "outcome"}, "'outcome' is the outcome and cannot also be a covariate or the placebo"),
        ({"covariates": ["age", "age"]}, "covariates must be different columns"),
        ({"cluster": "user_id"}, "unit, cluster, stratum and period are different columns"),
        ({"exposed": "outcome"}, "cannot be both the outcome and who was exposed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(influent.ConfigError, match=says):
        estimate(TWELVE, **arguments)


def test_what_the_chances_do_not_lead_to_was_not_drawn_by_them():
    columns = {"user_id": np.arange(400), "outcome": np.arange(400.0), "exposed": np.arange(400) < 280}
    with pytest.raises(influent.DataError, match="of 400 draws 280 were exposed, and .* it would be 200 ± 10"):
        estimate(columns)
    assert estimate(columns, probability=0.7).n_exposed == 280


def test_once_and_anew_in_each_period_are_told_apart():
    columns = {"user_id": np.repeat(np.arange(20), 3), "wave": np.tile([1, 2, 3], 20), "outcome": np.arange(60.0)}
    once, anew = np.repeat(np.arange(20) % 2, 3), np.arange(60) % 2
    with pytest.raises(influent.DataError, match="exposed in one 'wave' and not in another.*Leave each_period=True"):
        estimate(columns | {"exposed": once}, period="wave", each_period=True)
    with pytest.raises(influent.DataError, match="If it was drawn anew in each period, say each_period=True"):
        estimate(columns | {"exposed": anew}, period="wave")
    report = estimate(columns | {"exposed": anew}, period="wave", each_period=True)
    assert (report.n_draws_exposed, report.n_draws_unexposed) == (30, 30)
    assert "drawn anew in each wave for each user_id" in report.design


def test_a_planted_effect_lies_within_its_interval_as_often_as_that_says():
    covered = []
    for seed in range(40):
        settings = {"n_users": 360, "n_clusters": 12, "n_waves": 3, "cluster_spread": 0.4, "effect": 0.5}
        units = influent.simulate_experiment(influent.ExperimentConfig(**settings, drawn="cluster", seed=seed)).units
        report = influent.estimate_effect(
            units, probability="probability", cluster="cluster", period="wave", n_permutations=1
        )
        covered.append([measure.low <= 0.5 <= measure.high for measure in (report.effect, report.naive)])
    # Of 40 intervals at 95 % at least 34 hold the truth with probability .99; the naive ones are far too short.
    by_draw, naive = np.sum(covered, axis=0)
    assert by_draw >= 34
    assert naive < 30


@pytest.mark.parametrize("constant", [0.3, 1.0, 1000.1])
def test_an_outcome_that_is_the_same_for_all_has_no_effect_and_as_a_placebo_none_either(constant):
    rng = np.random.default_rng(0)
    exposed = rng.permutation(np.arange(41) % 2)
    columns = {"user_id": np.arange(41), "exposed": exposed, "outcome": np.full(41, constant)}
    report = estimate(columns)
    assert (report.effect.low, report.effect.mean, report.effect.high) == (0, 0, 0)
    assert "This is an effect" not in report.sentences()[0]
    columns |= {"outcome": rng.normal(size=41) + 5 * exposed, "before": np.full(41, constant)}
    assert estimate(columns, placebo="before").rows["placebo"].high == 0
