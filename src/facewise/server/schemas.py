"""Response schemas for OpenAPI. Attributes that are off are in no schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, create_model

from facewise.labels import DECADE_LABELS, ETHNICITY_LABELS, GENDER_LABELS

SCHEMA_VERSION: Final = 1
MORE_FACES: Final = "whether smaller faces were left out, past limits.max_faces of /v1/models"
Probability = Annotated[float, Field(ge=0, le=1)]


def _open(schema: dict[str, Any]) -> None:
    """Let clients that validate answers accept the fields of later releases (docs/api.md)."""
    schema.pop("additionalProperties", None)


class Strict(BaseModel):
    """Nothing but the fields below."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_open)


class Model(Strict):
    """Which weights answered."""

    name: str
    version: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Quality(Strict):
    """How much the face lets anyone see."""

    eye_distance_px: float
    sharpness: float
    yaw_degrees: float
    brightness: float
    contrast: float


class Timings(Strict):
    """Milliseconds by stage."""

    queue: float
    decode: float
    detect: float | None = None
    align: float | None = None
    attributes: float | None = None
    calibrate: float | None = None
    total: float


class ModelEntry(Strict):
    """An installed model."""

    name: str
    version: str
    sha256: str
    description: str
    licence: str
    data: list[str]
    figures: dict[str, Any]
    serving: bool = Field(description="whether this is the one that answers here")
    card: str = Field(description="where its model card is, relative to this server's root")


class Limits(Strict):
    """What the server accepts."""

    max_bytes: int
    max_pixels: int
    max_batch_bytes: int
    max_batch_photos: int
    max_faces: int | None = Field(
        description="of one photo that are answered for, the largest; null: all"
    )
    photos_per_minute: int | None = Field(
        description="that one client may send to one worker; null: no such limit"
    )


class Models(Strict):
    """Installed models, and what this server does with the one that it runs."""

    schema_version: int
    facewise_version: str
    models: list[ModelEntry]
    attributes: list[str] = Field(description="what answers hold")
    live_attributes: list[str] = Field(description="what the page's live camera shows")
    coverage: float
    limits: Limits
    needs_key: bool
    formats: list[str] = Field(description="kinds of pictures that are read here")
    on_device: bool = Field(
        description="whether the page can analyse in the browser, with the model that answers here"
    )


class Health(Strict):
    """Whether the process lives, or is ready for photos."""

    status: str = Field(examples=["ok", "ready"])


@dataclass(frozen=True, slots=True)
class Schemas:
    """Response models of the two analysing routes, for the attributes that are on."""

    analysis: type[BaseModel]
    batch: type[BaseModel]


def _distribution(name: str, labels: Sequence[str]) -> type[BaseModel]:
    probabilities = create_model(
        f"{name}Probabilities",
        __base__=Strict,
        **{f"p{i}": (Probability, Field(alias=label)) for i, label in enumerate(labels)},  # type: ignore[call-overload]
    )
    return create_model(
        name,
        __base__=Strict,
        label=(str, Field(description="the most probable", examples=[labels[0]])),
        probabilities=(probabilities, ...),
        label_set=(
            list[str],
            Field(min_length=1, description="holds the label at the stated coverage"),
        ),
    )


def build(attributes: Sequence[str]) -> Schemas:
    """Build the schemas for the given attributes only."""
    fields: dict[str, Any] = {
        "bbox": (
            list[float],
            Field(min_length=4, max_length=4, description="xyxy, pixels of the upright photo"),
        ),
        "landmarks": (
            list[list[float]],
            Field(min_length=5, max_length=5, description="eyes, nose, mouth corners"),
        ),
        "detection_score": (Probability, ...),
        "quality": (Quality | None, None),
    }
    # A request may select fewer attributes than are on, so any can be missing.
    if "age" in attributes:
        age = create_model(
            "Age",
            __base__=Strict,
            years=(float, Field(description="expected apparent age")),
            interval_years=(list[int], Field(min_length=2, max_length=2)),
            decades=(_distribution("Decades", DECADE_LABELS), ...),
            probabilities=(
                list[Probability] | None,
                Field(None, description="over 1 to 120 years; with years=true"),
            ),
        )
        fields["age"] = (age | None, None)
    if "gender" in attributes:
        fields["gender"] = (_distribution("Gender", GENDER_LABELS) | None, None)
    if "ethnicity" in attributes:
        fields["ethnicity"] = (_distribution("Ethnicity", ETHNICITY_LABELS) | None, None)
    fields |= {
        "coverage": (float, Field(description="of the interval and the label sets")),
        "abstained": (
            dict[str, str],
            Field(description="what facewise does not stand by, and why"),
        ),
        "vector": (
            list[float | None] | None,
            Field(None, description="the 19 outputs; null where off; with vector=true"),
        ),
        "model": (Model, ...),
    }
    face = create_model("Face", __base__=Strict, **fields)
    photo: dict[str, Any] = {
        "width_px": (int, Field(description="of the upright photo")),
        "height_px": (int, ...),
        "more_faces": (bool, Field(description=MORE_FACES)),
        "faces": (list[face], Field(description="the largest first; empty where there is none")),  # type: ignore[valid-type]
    }
    common: dict[str, Any] = {
        "schema_version": (int, ...),
        "facewise_version": (str, ...),
        "request_id": (str, ...),
        "model": (Model, ...),
        "attributes": (list[str], ...),
        "coverage": (float, ...),
        "timings_ms": (Timings, ...),
    }
    error = create_model("PhotoError", __base__=Strict, code=str, title=str, detail=str)
    slot: dict[str, Any] = {
        "index": (int, Field(description="in the order of the request, from 0")),
        "width_px": (int | None, None),
        "height_px": (int | None, None),
        "more_faces": (bool | None, Field(None, description=MORE_FACES)),
        "faces": (list[face] | None, None),  # type: ignore[valid-type]
        "error": (error | None, None),
    }
    entry = create_model("BatchPhoto", __base__=Strict, **slot)
    analysis = create_model("Analysis", __base__=Strict, **common, **photo)
    batch = create_model("BatchAnalysis", __base__=Strict, **common, photos=(list[entry], ...))  # type: ignore[valid-type]
    return Schemas(analysis, batch)
