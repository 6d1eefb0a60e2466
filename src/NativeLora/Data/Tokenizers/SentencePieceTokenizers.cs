namespace NativeLora.Data.Tokenizers;

/// <summary>Tokenizers made from SentencePiece models, in the parts and with the ids of Hugging Face's converters.</summary>
internal static class SentencePieceTokenizers
{
    private const string Mark = "\u2581";

    /// <summary>BPE with nothing rewritten, as Llama and Mistral have it; merges are derived from the pieces.</summary>
    /// <param name="file">The model.</param>
    /// <param name="controlInText">
    /// Control pieces such as &lt;s&gt; are recognised in a text, as Hugging Face does; SentencePiece itself takes them as text.
    /// </param>
    public static Pipeline Llama(string file, bool controlInText)
    {
        var model = SentencePieceFile.Read(file);
        if (!model.IsBpe)
            throw model.Wrong("only models of the BPE kind are supported under this name; a tokenizer.json may serve instead");
        if (model.CharacterMap.Length > 0 || model.RemoveExtraSpaces || !model.EscapeSpaces)
            throw model.Wrong("its normalizer rewrites characters, which is not supported here; a tokenizer.json may serve instead");

        var vocabulary = model.Vocabulary();
        var unknownId = model.UnknownId();
        var added = new List<AddedToken>();
        for (var id = 0; id < model.Pieces.Count; id++)
        {
            var (text, _, type) = model.Pieces[id];
            if (type == PieceType.UserDefined || (controlInText && type is PieceType.Unknown or PieceType.Control))
                added.Add(new AddedToken(text, id, Special: type != PieceType.UserDefined));
        }
        var byteFallback = model.Pieces.Exists(piece => piece.Type == PieceType.Byte);
        var bpe = new BpeModel(vocabulary, Merges(model.Pieces, vocabulary), (_, what) => model.Wrong(what),
            new BpeOptions(unknownId, FuseUnknown: true, ByteFallback: byteFallback));

        // tokenizer_config.json may say otherwise; without it a text begins with a token and ends with none.
        var settings = Path.Combine(Path.GetDirectoryName(file)!, "tokenizer_config.json");
        var (addBos, addEos) = File.Exists(settings)
            ? JsonField.Read(settings, root => (root.Flag("add_bos_token", true), root.Flag("add_eos_token", false))) : (true, false);
        var template = Template.Around(addBos ? Control(model.BosId) : null, addEos ? Control(model.EosId) : null);

        var replace = new ReplaceNormalizer(new StringPattern(" "), Mark);
        Normalizer normalizer = model.DummyPrefix ? new SequenceNormalizer([new PrependNormalizer(Mark), replace]) : replace;
        var decoder = new List<Decoder> { new ReplaceDecoder(new StringPattern(Mark), " "), new ByteFallbackDecoder(), new FuseDecoder() };
        if (model.DummyPrefix)
            decoder.Add(new StripDecoder(" ", 1, 0));
        return new Pipeline(file, bpe, added, normalizer, null, template, new SequenceDecoder(decoder));

        // SentencePiece writes -1 for a role that no piece has.
        int? Control(int id) => id >= 0 && id < model.Pieces.Count ? id : null;
    }

    /// <summary>Unigram behind the model's own character map, as DeBERTa has it; [MASK] comes after the last piece.</summary>
    public static Pipeline Deberta(string folder)
    {
        var model = SentencePieceFile.Read(Path.Combine(folder, "spm.model"));
        if (!model.IsUnigram)
            throw model.Wrong("only models of the Unigram kind are supported under this name");
        var settings = Path.Combine(folder, "tokenizer_config.json");
        var (lowercase, splitPunctuation) = File.Exists(settings)
            ? JsonField.Read(settings, root => (root.Flag("do_lower_case", false), root.Flag("split_by_punct", false))) : (false, false);

        var vocabulary = model.Vocabulary();
        var scores = new double[vocabulary.Size];
        for (var id = 0; id < scores.Length; id++)
            scores[id] = model.Pieces[id].Score;
        var added = new List<AddedToken>();
        foreach (var token in new[] { "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]" })
        {
            var id = vocabulary.Find(token) ?? (token == "[MASK]" ? vocabulary.Size : throw model.Wrong($"the piece '{token}' is missing"));
            added.Add(new AddedToken(token, id, Normalized: token == "[UNK]"));
        }

        var steps = new List<Normalizer>();
        if (lowercase)
            steps.Add(new LowercaseNormalizer());
        steps.Add(new StripNormalizer(left: true, right: true));
        if (model.CharacterMap.Length > 0)
            steps.Add(CharacterMapNormalizer.Parse(model.CharacterMap) ?? throw model.Wrong("its character map is damaged"));
        steps.Add(new ReplaceNormalizer(new SpacesPattern(), " "));
        PreTokenizer words = new MetaspacePreTokenizer(Mark, MetaspacePrefix.Always, split: true);
        return new Pipeline(model.File, new UnigramModel(vocabulary, scores, model.UnknownId(), byteFallback: false), added,
            new SequenceNormalizer(steps), splitPunctuation ? new SequencePreTokenizer([ClassPreTokenizer.Punctuation, words]) : words,
            Template.Bert(vocabulary.Find("[CLS]")!.Value, vocabulary.Find("[SEP]")!.Value), new MetaspaceDecoder(Mark, prefixed: true));
    }

    /// <summary>Every way of cutting a piece into two others: the best score first, then the longer left side.</summary>
    private static List<(string, string)> Merges(List<Piece> pieces, Vocabulary vocabulary)
    {
        var found = new List<(string Left, string Right, float Score, int LeftId, int RightId, int Order)>();
        for (var order = 0; order < pieces.Count; order++)
        {
            var (text, score, type) = pieces[order];
            if (type is not (PieceType.Normal or PieceType.UserDefined))
                continue;
            for (var cut = 1; cut < text.Length; cut++)
            {
                if (char.IsLowSurrogate(text[cut]))
                    continue;
                if (vocabulary.Lookup.TryGetValue(text.AsSpan(0, cut), out var left)
                    && vocabulary.Lookup.TryGetValue(text.AsSpan(cut), out var right))
                    found.Add((text[..cut], text[cut..], score, left, right, order));
            }
        }
        return [.. found.OrderByDescending(merge => merge.Score).ThenByDescending(merge => Length(merge.Left))
            .ThenByDescending(merge => Length(merge.Right)).ThenBy(merge => merge.Order).ThenBy(merge => merge.LeftId)
            .ThenBy(merge => merge.RightId).Select(merge => (merge.Left, merge.Right))];

        static int Length(string text) => text.Count(c => !char.IsLowSurrogate(c));
    }
}
