namespace NativeLora.Data.Tokenizers;

/// <summary>
/// Reads Hugging Face's tokenizer.json. Truncation and padding stored in it are left out: the caller says how long inputs may be.
/// </summary>
internal static class TokenizerJson
{
    public static Pipeline Load(string file) => JsonField.Read(file, root =>
    {
        var added = AddedTokens(root.Find("added_tokens"));
        var model = Model(root.Get("model"), added);
        return new Pipeline(file, model, added, TokenizerJsonParts.Normalizer(root.Find("normalizer")),
            TokenizerJsonParts.PreTokenizer(root.Find("pre_tokenizer")), Template(root.Find("post_processor"), model, added),
            Decoder(root));
    });

    private static Decoder? Decoder(JsonField root)
    {
        var decoder = TokenizerJsonParts.Decoder(root.Find("decoder"));
        // CLIP's file leaves the marks of word ends in the text; its tokenizer class takes them out.
        return decoder is ByteLevelDecoder && root.Get("model").TextOrNull("end_of_word_suffix") is { Length: > 0 } suffix
            ? new SequenceDecoder([decoder, new WordEndDecoder(suffix)]) : decoder;
    }

    private static List<AddedToken> AddedTokens(JsonField field)
    {
        var added = new List<AddedToken>();
        if (field.IsNull)
            return added;
        foreach (var item in field.Items())
        {
            var content = item.Get("content").Text();
            var id = item.Get("id").Number();
            if (id is < 0 or > Vocabulary.MaximumId)
                throw item.Wrong($"the id {id} is outside 0 to {Vocabulary.MaximumId}");
            // The reference ignores empty ones too.
            if (content.Length > 0)
            {
                added.Add(new AddedToken(content, id, item.Flag("single_word", false), item.Flag("lstrip", false),
                    item.Flag("rstrip", false), item.Flag("normalized", true), item.Flag("special", false)));
            }
        }
        return added;
    }

    private static SubwordModel Model(JsonField field, List<AddedToken> added)
    {
        // Old files name no type: then the members tell.
        var type = field.TextOrNull("type")
            ?? (!field.Find("merges").IsNull ? "BPE" : !field.Find("max_input_chars_per_word").IsNull ? "WordPiece" : "Unigram");
        return type switch
        {
            "BPE" => Bpe(field, added),
            "WordPiece" => WordPiece(field),
            "Unigram" => Unigram(field),
            _ => throw field.Wrong($"a model of type '{Vocabulary.Shown(type)}' is not supported (BPE, WordPiece and Unigram are)"),
        };
    }

    private static Vocabulary ReadVocabulary(JsonField field)
    {
        var vocabulary = new Vocabulary(field.File);
        foreach (var (token, id) in field.Members())
            vocabulary.Add(token, id.Number());
        return vocabulary.Count > 0 ? vocabulary : throw field.Wrong("no token in it");
    }

    private static WordPieceModel WordPiece(JsonField field)
    {
        var vocabulary = ReadVocabulary(field.Get("vocab"));
        var unknown = field.TextOrNull("unk_token") ?? "[UNK]";
        var longestField = field.Find("max_input_chars_per_word");
        var longest = longestField.IsNull ? 100 : longestField.Number();
        if (longest < 1)
            throw longestField.Wrong("should be at least 1");
        return new WordPieceModel(vocabulary,
            vocabulary.Find(unknown) ?? throw field.Wrong($"the unknown token '{Vocabulary.Shown(unknown)}' is not in the vocabulary"),
            field.TextOrNull("continuing_subword_prefix") ?? "##", longest);
    }

    private static UnigramModel Unigram(JsonField field)
    {
        var vocabulary = new Vocabulary(field.File);
        var scores = new List<double>();
        foreach (var item in field.Get("vocab").Items())
        {
            var pair = item.Items().ToArray();
            if (pair.Length != 2)
                throw item.Wrong("should be a token and its score");
            vocabulary.Add(pair[0].Text(), scores.Count);
            scores.Add(pair[1].Real());
        }
        var unknown = field.Get("unk_id").Number();
        if (unknown < 0 || unknown >= scores.Count)
            throw field.Wrong($"unk_id {unknown} is no token's");
        return new UnigramModel(vocabulary, [.. scores], unknown, field.Flag("byte_fallback", false));
    }

    private static BpeModel Bpe(JsonField field, List<AddedToken> added)
    {
        var vocabulary = ReadVocabulary(field.Get("vocab"));
        var dropout = field.Find("dropout");
        if (!dropout.IsNull && dropout.Real() != 0)
            throw dropout.Wrong("dropout of merges is not supported; set it to null");
        int? unknownId = null;
        if (field.TextOrNull("unk_token") is { Length: > 0 } unknown)
        {
            unknownId = vocabulary.Find(unknown) ?? added.Find(token => token.Content == unknown)?.Id
                ?? throw field.Wrong($"the unknown token '{Vocabulary.Shown(unknown)}' is not in the vocabulary");
        }
        var mergesField = field.Get("merges");
        var merges = new List<(string, string)>();
        foreach (var item in mergesField.Items())
            merges.Add(Merge(item));
        return new BpeModel(vocabulary, merges, (index, what) => mergesField.Wrong($"entry {index}: {what}"),
            new BpeOptions(unknownId, field.Flag("fuse_unk", false), field.Flag("byte_fallback", false),
                field.Flag("ignore_merges", false), field.TextOrNull("continuing_subword_prefix") ?? "",
                field.TextOrNull("end_of_word_suffix") ?? ""));
    }

    private static (string, string) Merge(JsonField item)
    {
        string[] sides = item.IsString ? item.Text().Split(' ') : [.. item.Items().Select(side => side.Text())];
        return sides.Length == 2 && sides[0].Length > 0 && sides[1].Length > 0
            ? (sides[0], sides[1]) : throw item.Wrong("should name two tokens");
    }

    private static Template Template(JsonField field, SubwordModel model, List<AddedToken> added)
    {
        if (field.IsNull)
            return Tokenizers.Template.Plain;
        switch (field.Get("type").Text())
        {
            case "ByteLevel":
                return Tokenizers.Template.Plain;
            case "BertProcessing":
                return Tokenizers.Template.Bert(NamedToken(field.Get("cls")), NamedToken(field.Get("sep")));
            case "RobertaProcessing":
                return Tokenizers.Template.Roberta(NamedToken(field.Get("cls")), NamedToken(field.Get("sep")));
            case "TemplateProcessing":
                var special = SpecialTokens(field.Find("special_tokens"));
                return new Template(Parts(field.Get("single"), special, pair: false), Parts(field.Get("pair"), special, pair: true));
            case "Sequence":
                // ByteLevel adds nothing; what counts is the one processor that does.
                var steps = field.Get("processors").Items().Where(step => step.Get("type").Text() != "ByteLevel").ToArray();
                return steps.Length switch
                {
                    0 => Tokenizers.Template.Plain,
                    1 => Template(steps[0], model, added),
                    _ => throw field.Wrong("more than one processor that adds tokens is not supported"),
                };
            default:
                throw field.Wrong($"type '{field.Get("type").Text()}' is not supported");
        }

        int Checked(int id, JsonField where) =>
            model.Vocabulary.TokenOf(id) is not null || added.Exists(token => token.Id == id)
                ? id : throw where.Wrong($"the id {id} is no token's");

        int NamedToken(JsonField named)
        {
            var items = named.Items().ToArray();
            return items.Length == 2 ? Checked(items[1].Number(), named) : throw named.Wrong("should be a token and its id");
        }

        Dictionary<string, int[]> SpecialTokens(JsonField named)
        {
            var read = new Dictionary<string, int[]>(StringComparer.Ordinal);
            foreach (var (name, value) in named.IsNull ? [] : named.Members())
                read[name] = [.. value.Get("ids").Items().Select(id => Checked(id.Number(), id))];
            return read;
        }
    }

    private static TemplatePart[] Parts(JsonField field, Dictionary<string, int[]> special, bool pair)
    {
        var parts = new List<TemplatePart>();
        foreach (var item in field.Items())
        {
            var sequence = item.Find("Sequence");
            var body = sequence.IsNull ? item.Get("SpecialToken") : sequence;
            var name = body.Get("id").Text();
            var type = body.Find("type_id") is { IsNull: false } given ? given.Number() : 0;
            if (type is not (0 or 1))
                throw body.Wrong($"the type id {type} is neither 0 nor 1");
            if (!sequence.IsNull)
            {
                parts.Add(Tokenizers.Template.Text(name switch
                {
                    "A" => 0,
                    "B" when pair => 1,
                    _ => throw body.Wrong($"sequence '{Vocabulary.Shown(name)}' is not known here"),
                }, type));
            }
            else if (special.TryGetValue(name, out var ids))
                parts.AddRange(ids.Select(id => Tokenizers.Template.Token(id, type)));
            else
                throw body.Wrong($"the special token '{Vocabulary.Shown(name)}' is not defined");
        }
        if (parts.Count(part => part.Sequence == 0) != 1 || parts.Count(part => part.Sequence == 1) != (pair ? 1 : 0))
            throw field.Wrong("each text should stand in it once");
        return [.. parts];
    }
}
