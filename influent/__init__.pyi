"""The public names, listed once; `__init__.py` imports each when it is first touched."""

from .data.artefacts import Artefacts as Artefacts
from .data.artefacts import find_artefacts as find_artefacts
from .data.cascades import (
    Cascades as Cascades,
)
from .data.cascades import (
    CascadeSplit as CascadeSplit,
)
from .data.cascades import (
    NextActs as NextActs,
)
from .data.cascades import (
    build_cascades as build_cascades,
)
from .data.cascades import (
    split_cascades as split_cascades,
)
from .data.clean import CleaningReport as CleaningReport
from .data.clean import clean as clean
from .data.engine import Engine as Engine
from .data.events import (
    Events as Events,
)
from .data.events import (
    Features as Features,
)
from .data.events import (
    read_edges as read_edges,
)
from .data.events import (
    read_events as read_events,
)
from .data.events import (
    read_items as read_items,
)
from .data.events import (
    read_users as read_users,
)
from .data.experiments import Experiment as Experiment
from .data.experiments import ExperimentConfig as ExperimentConfig
from .data.experiments import simulate_experiment as simulate_experiment
from .data.exposures import ExposureUnits as ExposureUnits
from .data.exposures import exposure_units as exposure_units
from .data.label_split import (
    LabelSplit as LabelSplit,
)
from .data.label_split import (
    split_events_at as split_events_at,
)
from .data.label_split import (
    split_labels_at as split_labels_at,
)
from .data.labels import (
    Labels as Labels,
)
from .data.labels import (
    amount_within as amount_within,
)
from .data.labels import (
    number_of_events as number_of_events,
)
from .data.labels import (
    of_events as of_events,
)
from .data.labels import (
    will_do as will_do,
)
from .data.moments import (
    Moments as Moments,
)
from .data.moments import (
    each_moment as each_moment,
)
from .data.moments import (
    latest_moments as latest_moments,
)
from .data.moments import (
    moments_at as moments_at,
)
from .data.moments import (
    moments_of as moments_of,
)
from .data.scaling import Scaling as Scaling
from .data.scaling import fit_scaling as fit_scaling
from .data.sequences import Sequences as Sequences
from .data.sequences import build_sequences as build_sequences
from .data.split import Split as Split
from .data.split import split_at as split_at
from .data.split import split_last as split_last
from .data.split import split_users as split_users
from .data.tie_artefacts import TieArtefacts as TieArtefacts
from .data.tie_artefacts import find_tie_artefacts as find_tie_artefacts
from .data.ties import Ties as Ties
from .data.ties import build_ties as build_ties
from .data.ties import co_acting as co_acting
from .data.time_artefacts import TimeArtefacts as TimeArtefacts
from .data.time_artefacts import find_time_artefacts as find_time_artefacts
from .data.vectors import ItemVectors as ItemVectors
from .data.vectors import read_vectors as read_vectors
from .data.vectors import reduce_vectors as reduce_vectors
from .data.vocab import Vocab as Vocab
from .data.worlds import (
    World as World,
)
from .data.worlds import (
    WorldAction as WorldAction,
)
from .data.worlds import (
    WorldConfig as WorldConfig,
)
from .data.worlds import (
    simulate_world as simulate_world,
)
from .errors import (
    ConfigError as ConfigError,
)
from .errors import (
    DataError as DataError,
)
from .errors import (
    InfluentError as InfluentError,
)
from .errors import (
    LeakageError as LeakageError,
)
from .errors import (
    MissingExtraError as MissingExtraError,
)
from .errors import (
    NotFittedError as NotFittedError,
)
from .errors import (
    RunFolderError as RunFolderError,
)
from .errors import (
    SchemaError as SchemaError,
)
from .errors import (
    UnbalancedLedgerError as UnbalancedLedgerError,
)
from .errors import (
    UnknownIdError as UnknownIdError,
)
from .evaluation.audit import audit as audit
from .evaluation.cascades import CascadeReport as CascadeReport
from .evaluation.cascades import evaluate_next_actor as evaluate_next_actor
from .evaluation.comparison import ComparisonReport as ComparisonReport
from .evaluation.comparison import compare as compare
from .evaluation.effects import EffectReport as EffectReport
from .evaluation.effects import estimate_effect as estimate_effect
from .evaluation.faithfulness import (
    FaithfulnessReport as FaithfulnessReport,
)
from .evaluation.faithfulness import (
    check_faithfulness as check_faithfulness,
)
from .evaluation.faithfulness import (
    credits_by as credits_by,
)
from .evaluation.labels import LabelReport as LabelReport
from .evaluation.labels import evaluate_labels as evaluate_labels
from .evaluation.likeness import LikenessReport as LikenessReport
from .evaluation.likeness import check_likeness as check_likeness
from .evaluation.likeness_tests import LikenessTest as LikenessTest
from .evaluation.offpolicy import (
    OffPolicyReport as OffPolicyReport,
)
from .evaluation.offpolicy import (
    off_policy_value as off_policy_value,
)
from .evaluation.placebo import (
    PlaceboReport as PlaceboReport,
)
from .evaluation.placebo import (
    check_placebos as check_placebos,
)
from .evaluation.report import Report as Report
from .evaluation.report import evaluate as evaluate
from .evaluation.times import TimeReport as TimeReport
from .evaluation.times import evaluate_times as evaluate_times
from .influence.attribution import Attribution as Attribution
from .influence.attribution import attribute as attribute
from .influence.causes import explain_causes as explain_causes
from .influence.difference import explain_difference as explain_difference
from .influence.drift import Drift as Drift
from .influence.drift import drift as drift
from .influence.evidence import evidence as evidence
from .influence.explain import explain as explain
from .influence.explain import explain_gap as explain_gap
from .influence.factors import Factors as Factors
from .influence.factors import factors as factors
from .influence.graph import InfluenceGraph as InfluenceGraph
from .influence.graph import influence_graph as influence_graph
from .influence.journeys import Journeys as Journeys
from .influence.journeys import journeys as journeys
from .influence.leaders import Leaders as Leaders
from .influence.leaders import leaders as leaders
from .influence.ledger import Ledger as Ledger
from .influence.planted import PlantedCredits as PlantedCredits
from .influence.planted import simulate_ledger as simulate_ledger
from .influence.propagation import Propagation as Propagation
from .influence.propagation import choose_seeds_by_credit as choose_seeds_by_credit
from .influence.seeding import Reach as Reach
from .influence.seeding import Seeds as Seeds
from .influence.seeding import choose_seeds as choose_seeds
from .influence.seeding import expected_reach as expected_reach
from .influence.spread import Spread as Spread
from .models.actor_intensity import ActorIntensity as ActorIntensity
from .models.classical import (
    GradientBoosting as GradientBoosting,
)
from .models.classical import (
    LinearSvm as LinearSvm,
)
from .models.classical import (
    LogisticRegression as LogisticRegression,
)
from .models.classical import (
    NeuralNetwork as NeuralNetwork,
)
from .models.classical import (
    RidgeRegression as RidgeRegression,
)
from .models.classical import (
    load_label_model as load_label_model,
)
from .models.config import ModelConfig as ModelConfig
from .models.config import TrainConfig as TrainConfig
from .models.credits import Credits as Credits
from .models.ensemble import Ensemble as Ensemble
from .models.hawkes import SocialConfig as SocialConfig
from .models.item_to_item import (
    DecayedCounts as DecayedCounts,
)
from .models.item_to_item import (
    Ease as Ease,
)
from .models.item_to_item import (
    ItemKNN as ItemKNN,
)
from .models.item_to_item import (
    Markov as Markov,
)
from .models.item_to_item import (
    Popularity as Popularity,
)
from .models.item_to_item import (
    RecentPopularity as RecentPopularity,
)
from .models.lora import FinetuneConfig as FinetuneConfig
from .models.lora import FinetunedEncoder as FinetunedEncoder
from .models.lora import finetune_text as finetune_text
from .models.methods import CreditMethod as CreditMethod
from .models.model import Model as Model
from .models.next_actor import ActorCounts as ActorCounts
from .models.next_actor import ActorPopularity as ActorPopularity
from .models.predictor import Predictor as Predictor
from .models.social import Social as Social
from .models.social_ranker import SocialRanker as SocialRanker
from .models.space import Choices as Choices
from .models.space import Range as Range
from .models.store import load_model as load_model
from .models.text import TextEncoder as TextEncoder
from .models.text import encode_items as encode_items
from .models.tracking import (
    JsonLines as JsonLines,
)
from .models.tracking import (
    Mlflow as Mlflow,
)
from .models.tracking import (
    TensorBoard as TensorBoard,
)
from .models.tracking import (
    Tracker as Tracker,
)
from .models.tuning import Tuned as Tuned
from .models.tuning import tune as tune
from .progress import Progress as Progress
from .progress import progress_for as progress_for
from .recommendations import Recommendations as Recommendations
from .recommendations import recommend as recommend
from .run import Run as Run

__version__: str
