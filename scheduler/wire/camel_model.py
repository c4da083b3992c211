"""Base model of everything on the wire: camelCase names in JSON."""

from typing import Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """camelCase on the wire, snake_case inside."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    @classmethod
    def view_of(cls, instance: object, **given: object) -> Self:
        """Fill each field from `given`, or a field without default from the attribute of the same name.

        A field with a default is filled only from `given`: an attribute that is added later must not replace a constant
        of the API unnoticed. Raises ValidationError.
        """
        needed = [name for name, field in cls.model_fields.items() if field.is_required()]
        same = {name: getattr(instance, name) for name in needed if hasattr(instance, name)}
        return cls.model_validate({**same, **given}, by_name=True)
